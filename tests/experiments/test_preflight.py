"""`lotto-jax preflight` on devices that are here: its numbers against those counted by hand, and refusals."""

import json
from types import SimpleNamespace

import jax
import pytest

from lotto_jax import cli
from lotto_jax.experiments.preflight import as_json, estimated_seconds, planned, preflight, table, training_hours
from lotto_jax.training import topologies
from tests import tiny

WEIGHTS = 2 * 64 * 8  # of the linear autoencoder of 8x8 digits, and 8 + 64 biases
EXAMPLES = 1438


@pytest.fixture(scope="module")
def three_devices():
    """Of which two seeds and then four tickets take two, and a batch of 127 none."""
    return topologies.of("this")._replace(devices=jax.devices()[:3], chips=3)


@pytest.fixture(scope="module")
def report(three_devices):
    (found,) = preflight(tiny.config(imp__rounds=1, imp__one_shot_sparsities=(0.5,)), three_devices)
    return found


def test_a_run_is_counted_as_it_will_train(report):
    seeds, steps, rewind = 2, 22, 3
    round_, one_shot = seeds * (rewind + 2 * (steps - rewind)), seeds * (steps - rewind)
    assert (report.steps, report.phases, report.ticket_steps) == (steps, 3, seeds * steps + round_ + one_shot)
    assert (report.mesh, report.abreast, report.idle) == ({"ticket": 2, "data": 1}, 2, pytest.approx(1 / 3))
    assert report.hours is None and report.chip_hours is None  # this compiler has no estimates


def test_its_programs_take_the_bytes_that_their_arguments_have(report):
    found = {(program.name, program.tickets): program for program in report.programs}
    assert list(found) == [
        ("step", 1), ("train", 2), ("train", 4), ("evaluate", 4), ("prune", 2), ("prune at once", 2)
    ]  # fmt: skip
    state = 4 * (3 * (WEIGHTS + 72) + 2) + 8  # params and moments, the counts of Adam and of the state, the key
    ticket = state + WEIGHTS  # and the mask of the kernels
    data = EXAMPLES * (64 + 4)
    for tickets in (2, 4):
        assert found["train", tickets].arguments == tickets // 2 * ticket + data + 8  # of a device, and the bounds
    assert found["prune", 2].arguments == 4 * WEIGHTS + WEIGHTS + 2 + 4  # all scalars of masks, and the fraction
    for program in found.values():
        assert program.memory >= program.arguments
        # A selection ends when it has for all tickets, so the devices ask each other.
        assert not program.collectives or program.name.startswith("prune")


def test_the_report_is_a_table_and_an_object(report):
    read = json.loads(as_json(report))
    assert read["ticket_steps"] == report.ticket_steps and read["programs"][1]["name"] == "train"
    lines = table(report).splitlines()
    assert "3 phases, 22 steps a ticket" in table(report)
    assert sum(line.startswith("| train ") for line in lines) == 2


def test_chosen_programs_are_compiled_with_the_step(three_devices):
    (found,) = preflight(tiny.config(), three_devices, only=("prune",))
    assert [program.name for program in found.programs] == ["step", "prune"]
    with pytest.raises(ValueError, match="--only names 'sleep', but this run has no such program; it has step, train,"):
        preflight(tiny.config(), three_devices, only=("sleep",))


def test_a_step_is_compiled_for_every_number_of_devices_that_a_ticket_has(three_devices):
    """One ticket has four devices, then two tickets two each; the hours are those of both steps."""
    config = tiny.config(seeds=(0,), train__batch_size=128, imp__rounds=1)
    (found,) = preflight(config, three_devices._replace(devices=jax.devices()[:4]), only=("prune",))
    steps = {program.split: program for program in found.programs if program.name == "step"}
    assert list(steps) == [2, 4] and all("all-reduce" in step.collectives for step in steps.values())
    with planned(config, three_devices._replace(devices=jax.devices()[:4])) as (run,):
        places = {phase.tickets: run.place_tickets(run.objective, phase.tickets) for phase in run.phases}
        steps_of = [run.steps, 3 / 2 + run.steps - 3]  # the winning ticket has three steps behind it
        expected = (steps_of[0] * 7.0 + steps_of[1] * 5.0) / 3600
        assert training_hours(run, places, {4: 7.0, 2: 5.0}) == pytest.approx(expected)
        assert training_hours(run, places, {4: 7.0, 2: None}) is None


@pytest.mark.parametrize(
    ("estimate", "calls", "rest", "seconds"),
    [
        ({"optimal_seconds": 0.25}, [], "", 0.25),
        ({"optimal_seconds": -1.75}, ["ConcatBitcast", "ConcatBitcast"], "", 0.25),
        ({"optimal_seconds": -1.75}, ["ConcatBitcast", "TopK"], "", None),
        ({"optimal_seconds": 0.25}, [], "%w = s32[] while(%x), body=%b", None),
        ({}, [], "", None),
        (None, [], "", None),
    ],
)
def test_bitcasts_take_no_time_and_other_things_without_an_estimate_leave_none(estimate, calls, rest, seconds):
    lines = [f'%c = f32[2] custom-call(%a), custom_call_target="{name}"' for name in calls]
    compiled = SimpleNamespace(cost_analysis=lambda: estimate, as_text=lambda: "\n".join([*lines, rest]))
    assert estimated_seconds(compiled) == seconds


def test_what_does_not_fit_is_refused_with_the_field_to_change(three_devices):
    with pytest.raises(
        ValueError, match=r"'step' of 1 ticket needs .* MiB of .*; reduce config.train.batch_size \(now 127"
    ):
        preflight(tiny.config(), three_devices._replace(memory=2**10))


@pytest.mark.parametrize(
    ("topology", "message"),
    [("v5e", "--topology is 'v5e'; it takes"), ("h100:8", "'h100:8'; it takes"), ("v9:2x2", "'v9:2x2'; it takes")],
)
def test_an_unknown_topology_is_one_sentence_and_status_1(topology, message, capsys, monkeypatch):
    monkeypatch.setattr("os.environ", dict())  # which the command sets
    with pytest.raises(SystemExit) as error:
        cli.main(["preflight", "--config=configs/quickstart.py", f"--topology={topology}"])
    said = capsys.readouterr().err
    assert error.value.code == 1 and message in said and len(said.strip().splitlines()) == 1
