"""What a single process can see of the functions for several."""

import signal

import jax
import numpy as np
import pytest

from lotto_jax.experiments.run import run
from lotto_jax.runs.directory import RunDirectory, RunDirectoryError
from lotto_jax.training import hosts, mesh
from lotto_jax.training.preemption import Preempted
from tests import tiny


def test_a_single_process_is_the_first_and_hears_itself():
    assert hosts.is_first()
    assert hosts.everyones({"a": 1}) == [{"a": 1}] and hosts.told([2.5]) == [2.5]
    assert hosts.first(max, 3, 4) == 4


def test_arrays_that_are_placed_can_be_gathered():
    devices = mesh.make(2, 4)
    keys = jax.vmap(jax.random.key)(np.arange(4, dtype=np.uint32))
    tree = {"keys": keys, "x": np.arange(8.0, dtype=np.float32).reshape(4, 2)}
    placed = hosts.place(tree, mesh.by_ticket(devices))
    assert placed["x"].sharding == mesh.by_ticket(devices)
    tiny.assert_same(hosts.gathered(placed), tree)


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (
            "DEADLINE_EXCEEDED: Barrier timed out.\nSome timed out task names:\n1\n\n\nRPC: /Barrier",
            "Process 1 has given",
        ),
        ("DEADLINE_EXCEEDED: Barrier timed out.\nSome timed out task names:\n1\n3\n12\n\n", "Processes 1, 3 and 12 "),
        (
            "INTERNAL: Barrier failed because: UNAVAILABLE: Task 2 heartbeat timeout. This indicates",
            "Process 2 has given",
        ),
        ("UNKNOWN: of another version", "Another process is lost (UNKNOWN: of another version)"),
        # This one is process 0, which came when the others had left.
        (
            "DEADLINE_EXCEEDED: Barrier timed out.\nSome timed out task names:\n0\n\n",
            "has stopped and says on its term",
        ),
    ],
)
def test_the_report_of_the_coordination_service_names_who_is_missing(report, said, monkeypatch):
    def fail(*args, **kwargs):
        raise jax.errors.JaxRuntimeError(report)

    monkeypatch.setattr(hosts.ocp.multihost, "sync_global_processes", fail)
    with pytest.raises(hosts.Lost) as error:
        hosts._meet("somewhere", 5.0)
    assert said in str(error.value) and "the same command goes on" in str(error.value)


@pytest.mark.parametrize(("over", "status", "says"), [([], 1, True), ([0], 0, False), ([143], 143, False)])
def test_an_abort_of_jax_is_a_loss_unless_all_is_done(over, status, says, monkeypatch, capsys):
    ends = []
    monkeypatch.setattr(hosts, "_over", over)
    monkeypatch.setattr(hosts.os, "_exit", lambda status: ends.append(status))
    hosts._aborted(signal.SIGABRT)
    assert ends[0] == status
    assert ("is lost; the same command goes on" in capsys.readouterr().err) or not says


def test_processes_with_another_configuration_are_refused(tmp_path, monkeypatch):
    """The other process measures other metrics, which changes no ticket, but what the processes do."""

    def with_another(value):
        mine, data = value
        return [value, ({**mine, "metrics.samples": 5}, data)]

    monkeypatch.setattr(hosts, "everyones", with_another)
    with pytest.raises(ValueError, match=r"config\.metrics\.samples is 5 in process 1, but 10000 in process 0; give"):
        run(tiny.config(), tmp_path / "run")


def test_what_went_wrong_is_said_once(capsys):
    error = ValueError("config.seeds is empty")
    hosts.complain(error)
    hosts.complain(error)
    hosts.complain(Preempted())  # is no fault, and has a sentence of its own
    assert capsys.readouterr().err == "lotto-jax: config.seeds is empty\n"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"coordinator": "somewhere"}, "config.distributed.coordinator is 'somewhere'; it takes auto, off, or host:p"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, "config.distributed.process is 2, of config.distribut"),
        ({"coordinator": "a:1", "processes": 2}, "cannot be joined"),  # this process computes already
    ],
)
def test_fields_that_make_no_sense_are_refused(tmp_path, fields, sentence):
    jax.devices()
    with pytest.raises(ValueError, match=r"config\.distributed") as error:
        run(tiny.config(**{f"distributed__{name}": value for name, value in fields.items()}), tmp_path / "run")
    assert sentence in str(error.value) and not (tmp_path / "run").exists()


def test_other_processes_are_no_other_configuration(tmp_path):
    RunDirectory(tmp_path / "run", tiny.config(distributed__processes=2, distributed__process=1)).close()
    RunDirectory(tmp_path / "run", tiny.config(distributed__coordinator="off", distributed__timeout=5.0)).close()
    with pytest.raises(RunDirectoryError, match="another configuration"):
        RunDirectory(tmp_path / "run", tiny.config(train__epochs=3))


def test_an_object_store_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunDirectoryError, match="an object store"):
        run(tiny.config(), "gs://bucket/run")
    assert not list(tmp_path.iterdir())
