"""The search itself, run for real on the digits: arms, sparsities, tickets on disk, one compilation for all rounds."""

import contextlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from lotto_jax.data import sources
from lotto_jax.experiments import EXPERIMENTS, build
from lotto_jax.experiments.protocol import Start
from lotto_jax.experiments.report import write
from lotto_jax.experiments.run import feed_of, run
from lotto_jax.experiments.runner import Run
from lotto_jax.experiments.trainer import Diverged, Trainer
from lotto_jax.runs import curves
from lotto_jax.runs.directory import RunDirectory
from lotto_jax.runs.results import read as read_results
from lotto_jax.training.preemption import Preempted, Preemption
from tests import tiny

WEIGHTS = 2 * 64 * 8


def config_of_finished():
    return tiny.config(
        imp__pruned=("both", "encoder"),
        imp__arms=("winning", "random", "random_pruned"),
        imp__one_shot_sparsities=(0.5, 0.9),
        evaluation__points=2,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished search with every arm, both kinds of component choice, and one-shot tickets."""
    workdir = tmp_path_factory.mktemp("imp") / "run"
    run(config_of_finished(), workdir)
    return workdir


def values(results, **fields):
    return [r for r in results if all(getattr(r, k) == v for k, v in fields.items())]


def test_every_arm_round_and_seed_is_measured_once(finished):
    results = read_results(finished)
    assert len(results) == 2 + 2 * 2 * 3 * 2 + 2 * 2  # dense; rounds x pruned x arms x seeds; one-shot x seeds
    assert len({r[:-1] for r in results}) == len(results)
    assert {r.metric for r in results} == {"reconstruction_loss"}


def test_tickets_are_evaluated_at_evenly_spaced_steps_of_training(finished):
    results, points = read_results(finished), curves.read(finished, curves.HELD_OUT)
    assert len(points) == 2 * len(results)
    half, end = ([p for p in points if p["step"] == step] for step in (11, 22))
    at = lambda p: (p["pruned"], p["round"], p["arm"], p["seed"], round(p["sparsity"], 6))  # noqa: E731
    found = {at(r._asdict()): r.value for r in results}
    assert {at(p): p["reconstruction_loss"] for p in end} == pytest.approx(found)  # results.csv has nine digits
    assert np.mean([p["reconstruction_loss"] for p in half]) > np.mean(list(found.values()))


def test_sparsity_counts_the_weights_of_the_whole_network(finished):
    results = read_results(finished)
    kept = [WEIGHTS - round(0.2 * WEIGHTS)]
    kept.append(kept[0] - round(0.2 * kept[0]))
    half = [WEIGHTS // 2 - round(0.2 * WEIGHTS / 2)]
    half.append(half[0] - round(0.2 * half[0]))
    for number in (1, 2):
        both = {r.sparsity for r in values(results, round=number, pruned="both", arm="winning")}
        encoder = {r.sparsity for r in values(results, round=number, pruned="encoder", arm="winning")}
        assert list(both) == pytest.approx([1 - kept[number - 1] / WEIGHTS])
        assert list(encoder) == pytest.approx([(WEIGHTS // 2 - half[number - 1]) / WEIGHTS])
    one_shot = {round(r.sparsity, 2) for r in values(results, arm="one_shot")}
    assert one_shot == {0.5, 0.9}


def test_arms_are_fair_all_see_the_same_number_of_updates(finished):
    points = curves.read(finished)
    last = {}
    for p in points:
        last[p["round"], p["arm"], p["pruned"], p["seed"]] = p["step"]
    assert set(last.values()) == {22}
    first = min(p["step"] for p in points if p["arm"] == "winning")
    assert first == 4  # its first three steps are behind it
    assert min(p["step"] for p in points if p["arm"] == "random") == 1
    assert {r.step for r in read_results(finished)} == {22}


def test_tickets_on_disk_nest_and_say_where_they_come_from(finished):
    tickets = {}
    for directory in (finished / "tickets").iterdir():
        provenance = json.loads((directory / "provenance.json").read_text())
        masks = load_file(directory / "mask.safetensors")
        tickets[provenance["pruned"], provenance["arm"], provenance["round"], provenance["seed"]] = provenance, masks
    for seed in (0, 1):
        (first, older), (second, newer) = (tickets["both", "winning", r, seed] for r in (1, 2))
        assert first["parent"] == "dense" and second["parent"] == first["name"]
        assert (finished / "checkpoints" / "snapshots" / str(second["start"])).is_dir()
        for name, bits in newer.items():
            assert not np.any(bits & ~older[name])  # nothing revived
        ones = sum(int(np.unpackbits(bits).sum()) for bits in newer.values())
        assert 1 - ones / WEIGHTS == pytest.approx(second["sparsity"])
        assert set(tickets["encoder", "winning", 2, seed][1]) == {"encoder/dense/kernel"}


def test_random_pruned_masks_have_the_layers_sparsity_of_the_winning_ones(finished):
    from orbax.checkpoint import StandardCheckpointer

    raw = StandardCheckpointer().restore((finished / "checkpoints" / "rounds" / "2" / "state").absolute())
    meta = json.loads((finished / "checkpoints" / "rounds" / "2" / "meta" / "metadata").read_text())
    arms = [(t["pruned"], t["arm"], t["seed"]) for t in meta["tickets"]]
    for seed in (0, 1):
        for bits in raw["mask"]:
            winning, shuffled = (bits[arms.index(("both", arm, seed))] for arm in ("winning", "random_pruned"))
            assert np.unpackbits(winning).sum() == np.unpackbits(shuffled).sum()
            assert not np.array_equal(winning, shuffled)


def test_running_again_changes_nothing(finished):
    before = (finished / "results.csv").read_bytes()
    run(config_of_finished(), finished)
    assert (finished / "results.csv").read_bytes() == before


def test_rounds_after_the_first_compile_nothing(tmp_path):
    """Every lowering is counted, down to single array operations; a long search has those of a short one."""

    def lowerings(rounds):
        jax.clear_caches()
        counted = []
        listener = lambda name, seconds, **kw: counted.append(name) if "jaxpr_to_mlir" in name else None  # noqa: E731
        jax.monitoring.register_event_duration_secs_listener(listener)
        run(tiny.config(imp__rounds=rounds), tmp_path / str(rounds))
        jax.monitoring.unregister_event_duration_listener(listener)
        return len(counted)

    short, long = lowerings(2), lowerings(5)
    assert short > 0 and long == short


def test_rewinding_to_initialization(tmp_path):
    run(tiny.config(imp__rewind_step=0, imp__rounds=1), tmp_path / "run")
    points = [p for p in curves.read(tmp_path / "run") if p["arm"] == "winning"]
    assert min(p["step"] for p in points) == 1 and max(p["step"] for p in points) == 22


def test_keeping_only_the_last_states_still_finishes(tmp_path):
    pictures = {"checkpoint__keep_states": "last", "evaluation__images": 2}
    config = tiny.config(imp__rounds=3, imp__one_shot_sparsities=(0.5,), **pictures)
    run(config, tmp_path / "run")
    kept = {int(p.name) for p in (tmp_path / "run" / "checkpoints" / "rounds").iterdir() if p.name.isdigit()}
    assert kept == {0, 4}
    assert "one_shot" in write(tmp_path / "run")  # no round's images are left to draw, and that is no error


def test_no_rounds_at_all_is_the_dense_network(tmp_path):
    run(tiny.config(imp__rounds=0), tmp_path / "run")
    assert {r.arm for r in read_results(tmp_path / "run")} == {"dense"}
    assert "dense" in write(tmp_path / "run")


@pytest.mark.parametrize("damaged", ["rounds/0", "rounds/1", "snapshots/3"])
def test_damaged_states_of_an_earlier_round_are_made_again(tmp_path, damaged):
    """One-shot tickets need the dense network and the snapshot, image grids every round."""
    config = tiny.config(imp__one_shot_sparsities=(0.5,), evaluation__images=2)
    whole, path = tmp_path / "whole", tmp_path / "run"
    run(config, whole)
    shutil.copytree(whole, path)
    shutil.rmtree(path / "checkpoints" / "rounds" / "3")  # the one-shot phase is still to do
    for file in (path / "checkpoints" / damaged / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:50])
    with pytest.warns(UserWarning, match="again"):
        run(config, path)
    for name in ("results.csv", "images.safetensors"):
        assert (path / name).read_bytes() == (whole / name).read_bytes()
    logs = [sorted(map(str, curves.read(p))) for p in (path, whole)]
    assert logs[0] == logs[1]


def test_sigterm_while_evaluating_stops_before_results_and_the_next_run_writes_them(tmp_path, monkeypatch):
    run(tiny.config(), tmp_path / "whole")
    preemption, evaluate, calls = Preemption(), Trainer.evaluate, []

    def interrupted(self, objective, stack, placement):
        calls.append(stack.tickets[0].level)
        preemption.requested = len(calls) == 2
        return evaluate(self, objective, stack, placement)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "evaluate", interrupted)
        with pytest.raises(Preempted):
            run(tiny.config(), tmp_path / "run", preemption)
    assert calls == [0, 1] and {r.round for r in read_results(tmp_path / "run")} == {0}
    run(tiny.config(), tmp_path / "run")
    assert (tmp_path / "run" / "results.csv").read_bytes() == (tmp_path / "whole" / "results.csv").read_bytes()


def test_the_dense_ticket_from_the_stored_snapshot_is_the_original_run_bit_for_bit(finished, tmp_path):
    """Zero-sparsity identity through Orbax and the trainer, for all seeds."""
    config = config_of_finished()
    shutil.copytree(finished, tmp_path / "run")
    dataset = sources.load(**config.dataset)
    feed = feed_of(config, dataset)
    objective = build.objective(config, dataset.image_shape, steps=feed.steps)
    with contextlib.ExitStack() as closing:
        directory = closing.enter_context(contextlib.closing(RunDirectory(tmp_path / "run", config)))
        search = Run(config, EXPERIMENTS["imp"], objective, feed, directory, Preemption())
        closing.enter_context(contextlib.closing(search))
        original, ones = search.finished(0), search.ones("both")
        body = search.stack("both", 0, "dense", search.snapshot(3), ones)
        again = search.trainer.train(99, "again", Start(objective, body=body, join=3), search.placement)
    jax.tree.map(np.testing.assert_array_equal, again.stack.states.params, original.params)
    assert int(again.stack.states.step[0]) == feed.steps


def test_a_refused_configuration_leaves_the_directory_free(tmp_path):
    with pytest.raises(ValueError, match="training has only 22 steps"):
        run(tiny.config(imp__rewind_step=22), tmp_path / "run")
    run(tiny.config(imp__rounds=0), tmp_path / "run")


def test_divergence_names_round_step_and_seed_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    """The loss is made infinite from step 16 on: after the first chunks, which are saved."""
    whole = build.objective

    def poisoned(*args):
        objective = whole(*args)

        def step(state, mask, batch, key):
            after, metrics = objective.step(state, mask, batch, key)
            return after, {"loss": jnp.where(after.step == 16, jnp.inf, metrics["loss"])}

        return objective._replace(step=step)

    monkeypatch.setattr(build, "objective", poisoned)
    with pytest.raises(Diverged, match=r"loss is not finite at step 16 of round 0, arm dense, seed 0.*learning_rate"):
        run(tiny.config(), tmp_path / "run")
    chunks = tmp_path / "run" / "checkpoints" / "chunks"
    assert [int(p.name) for p in chunks.iterdir() if p.name.isdigit()] in ([3, 13], [13])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("imp__pruned", ("generator",), "'generator', but linear_autoencoder has encoder, decoder"),
        ("imp__arms", ("random",), "must hold 'winning'"),
        ("imp__arms", ("winning", "lucky"), "names 'lucky'"),
        ("imp__fraction", 1.0, "config.imp.fraction is 1.0"),
        ("imp__pruned", ("both", "both"), "every entry may be there once"),
        ("imp__one_shot_sparsities", ("a",), "holds a"),
        ("imp__one_shot_sparsities", (0.9999,), "leaves none of 1024 weights"),
        ("model", {"name": "linear_autoencoder", "latent": 0}, "latent is 0; it takes a positive integer"),
        ("optimizer", {"name": "adam", "learning_rate": "x"}, "learning_rate is 'x'; it takes a number"),
        ("optimizer", {"name": "adam"}, "config.optimizer.learning_rate is missing"),
        ("imp__rewind_step", 22, "training has only 22 steps"),
        ("imp__one_shot_sparsities", (1.5,), "holds 1.5"),
        ("train__batch_size", 5000, "more than the 1438 training examples"),
        ("dataset__train_examples", 9999, "has 1438"),
        ("evaluation__split", "validation", "that split is empty"),
        ("model", {"name": "transformer"}, "takes one of conv_autoencoder"),
        ("model", {"name": "linear_autoencoder", "depth": 3}, r"config.model.depth is not a field"),
        ("optimizer", {"name": "adam", "lr": 0.1}, r"config.optimizer.lr is not a field of 'adam'"),
        ("objective", {"name": "reconstruction", "beta": 4.0}, r"config.objective.beta is not a field"),
    ],
)
def test_a_bad_field_is_one_clear_sentence(tmp_path, field, value, message):
    with pytest.raises(ValueError, match=message) as error:
        run(tiny.config(**{field: value}), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_a_layer_without_weights_is_named(tmp_path, capsys):
    """Of what one weight in a thousand makes, some layer has none."""
    optimizer = {"name": "sgd", "learning_rate": 1e-9}
    run(tiny.config(imp__rounds=1, imp__fraction=0.999, optimizer=optimizer), tmp_path / "run")
    assert "Round 1, both pruned: no weight is left in" in capsys.readouterr().out
