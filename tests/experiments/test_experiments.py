"""Experiments are things: each stands by itself over one runner, and a user's own is named by reference."""

import ast
from pathlib import Path

import jax
import numpy as np
import pytest

from lotto_jax.experiments import EXPERIMENTS
from lotto_jax.experiments.report import write
from lotto_jax.experiments.run import run
from lotto_jax.runs import curves
from lotto_jax.runs import directory as directories
from lotto_jax.runs.results import read as read_results
from lotto_jax.training import placement
from lotto_jax.training.preemption import Preempted, Preemption
from tests import tiny

PACKAGE = Path(__file__).resolve().parents[2] / "lotto_jax"
OWN = "tests.experiments.own"


def test_no_module_compares_the_name_of_an_experiment():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                sides = [ast.unparse(side) for side in [node.left, *node.comparators]]
                literal = any(isinstance(side, ast.Constant) for side in [node.left, *node.comparators])
                assert not (literal and any("experiment" in side for side in sides)), f"{path}: {ast.unparse(node)}"


def test_every_file_with_an_experiment_is_short():
    own = {"dense", "early_bird", "imp", "one_shot", "prune_at_init", "siblings", "table2", "transfer"}
    assert set(EXPERIMENTS) == own
    for name in EXPERIMENTS:
        lines = (PACKAGE / "experiments" / f"{name}.py").read_text().splitlines()
        assert len(lines) < 150, name


def test_one_shot_tickets_are_an_experiment_of_their_own(tmp_path):
    """The same tickets that a search has in its last phase."""
    sparsities = (0.5, 0.9)
    run(tiny.config(imp__rounds=0, imp__one_shot_sparsities=sparsities), tmp_path / "search")
    alone = tiny.config(experiment="one_shot", imp__one_shot_sparsities=sparsities, evaluation__images=2)
    run(alone, tmp_path / "alone")
    search, own = (
        {(r.arm, r.sparsity, r.seed): r.value for r in read_results(tmp_path / name)} for name in ("search", "alone")
    )
    assert search == own and len(own) == 2 + 4
    assert "one_shot" in write(tmp_path / "alone")
    figures = {path.name for path in (tmp_path / "alone" / "figures").glob("*.png")}
    drawn = {"reconstruction_loss_against_sparsity", "loss_curves", "training_loss_early_stopping", "reconstructions"}
    assert figures == {f"{name}.png" for name in drawn}


def test_pruning_at_initialization_is_an_experiment_of_its_own(tmp_path):
    config = tiny.config(experiment="prune_at_init", imp__rounds=2, imp__arms=("snip", "grasp"))
    run(config, tmp_path / "run")
    run(tiny.config(imp__arms=("winning", "snip", "grasp")), tmp_path / "search")
    alone, beside = ({(r.arm, r.round, r.seed): r for r in read_results(tmp_path / name)} for name in ("run", "search"))
    assert alone.keys() == {key for key in beside if key[0] != "winning"}
    for key, row in alone.items():
        assert row.sparsity == beside[key].sparsity and row.value == pytest.approx(beside[key].value, rel=1e-4)


def test_an_experiment_of_ones_own_runs_reports_and_goes_on(tmp_path):
    class At(Preemption):
        looks = 4

        @property
        def requested(self):
            self.looks -= 1
            return self.looks < 0

    config = tiny.config(experiment=f"{OWN}:EXPERIMENT", imp__rounds=20, imp__rewind_step=10)
    run(config, tmp_path / "whole")
    with pytest.raises(Preempted):
        run(config, tmp_path / "run", At())
    run(config, tmp_path / "run")
    rows = read_results(tmp_path / "run")
    assert rows == read_results(tmp_path / "whole")
    assert {(r.arm, round(r.sparsity, 2)) for r in rows} == {("dense", 0.0), ("lucky", 0.1)}
    assert {p["step"] for p in curves.read(tmp_path / "run") if p["arm"] == "lucky"} == set(range(12, 23))
    assert "lucky" in write(tmp_path / "run")
    assert (tmp_path / "run" / "figures" / "reconstruction_loss_against_sparsity.png").stat().st_size > 1000
    assert directories.read_progress(tmp_path / "run") == (2, 2, "lucky tickets")


def test_a_rule_of_ones_own_prunes(tmp_path):
    run(tiny.config(imp__rule=f"{OWN}:tenth_of_the_encoder", imp__rounds=1), tmp_path / "run")
    assert {round(r.sparsity, 3) for r in read_results(tmp_path / "run") if r.arm == "winning"} == {0.1}
    run(tiny.config(imp__rule="layerwise_magnitude", imp__rounds=1), tmp_path / "layerwise")
    assert {round(r.sparsity, 2) for r in read_results(tmp_path / "layerwise") if r.arm == "winning"} == {0.2}
    with pytest.raises(
        ValueError, match=r"config.imp.rule is 'smallest'; it takes one of blocks_4x4, global_magnitude"
    ):
        run(tiny.config(imp__rule="smallest"), tmp_path / "bad")


def test_an_objective_of_ones_own_trains_if_its_metrics_have_directions(tmp_path):
    model = {"name": f"{OWN}:scale_with_direction"}
    settings = {"optimizer": {"name": "sgd", "learning_rate": 0.1}}
    run(tiny.config(model=model, imp__rounds=0, **settings), tmp_path / "run")
    assert all(r.value < 0.01 for r in read_results(tmp_path / "run") if r.metric == "distance")
    model = {"name": f"{OWN}:scale", "start": 1.0}
    with pytest.raises(ValueError, match="The metric 'distance' of the objective has no direction; give the Objective"):
        run(tiny.config(model=model, imp__rounds=0, **settings), tmp_path / "bad")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"experiment": "lottery"}, "config.experiment is 'lottery'; it takes one of dense, early_bird, imp"),
        ({"experiment": "dense", "imp__rounds": 3}, "imp.rounds is 3, but the experiment 'dense' does not read it"),
        ({"experiment": "one_shot"}, "one_shot_sparsities is empty; it takes the sparsities"),
        ({"experiment": "prune_at_init"}, "arms names 'winning'; it takes snip, grasp"),
        ({"optimizer": {"name": "adam", "learning_rate": -1.0}}, r"learning_rate is -1.0; it must be above 0"),
        ({"model": {"name": f"{OWN}:EXPERIMENT"}}, "which is a Experiment; it takes a Flax module"),
        ({"experiment": f"{OWN}:Deep"}, "it takes a lotto_jax.experiments.protocol.Experiment"),
        ({"imp__rule": f"{OWN}:EXPERIMENT"}, r"which is a Experiment; it takes a function \(params, mask, fraction\)"),
        (
            {"experiment": "one_shot", "imp__pruned": ("both", "encoder"), "imp__one_shot_sparsities": (0.5,)},
            "one-shot tickets take one choice",
        ),
        (
            {"model": {"name": "dcgan", "width": 2}, "objective": {"loss": "bce", "latent": 3, "critic_steps": 0}},
            "config.objective.critic_steps is 0; it takes a positive integer",
        ),
    ],
)
def test_what_makes_no_sense_is_one_sentence(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message) as error:
        run(tiny.config(**fields), tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_a_phase_that_finds_no_place_is_refused_before_any_trains(tmp_path, monkeypatch):
    choose = placement.choose

    def picky(wanted, objective, tickets, *rest):
        if tickets == 4:  # of the rounds
            raise ValueError("no place for 4")
        return choose(wanted, objective, tickets, *rest)

    monkeypatch.setattr(placement, "choose", picky)
    with pytest.raises(ValueError, match="no place for 4"):
        run(tiny.config(), tmp_path)
    assert not curves.read(tmp_path)


def test_the_dataset_is_uploaded_once_whatever_the_number_of_phases(tmp_path, monkeypatch):
    uploads, put = [], jax.device_put

    def counted(tree, *arguments, **keywords):
        rows = [x for x in jax.tree.leaves(tree) if isinstance(x, np.ndarray) and x.dtype == np.uint32 and x.ndim == 2]
        uploads.extend(len(x) for x in rows if len(x) == 1438)  # images, as words
        return put(tree, *arguments, **keywords)

    monkeypatch.setattr(jax, "device_put", counted)
    run(tiny.config(imp__rounds=2, imp__one_shot_sparsities=(0.5,)), tmp_path / "run")
    assert uploads == [1438]


def test_what_is_kept_is_verified_at_every_start_and_said_in_its_own_words(tmp_path, capsys):
    config = tiny.config(imp__one_shot_sparsities=(0.5,))
    run(config, tmp_path / "run")
    before = (tmp_path / "run" / "results.csv").read_bytes()
    state = tmp_path / "run" / "checkpoints" / "rounds" / "3" / "state"
    for file in [p for p in state.rglob("*") if p.is_file()]:
        file.write_bytes(file.read_bytes()[:50])
    with pytest.warns(UserWarning, match="Training one-shot tickets again"):
        run(config, tmp_path / "run")
    assert "Going on with one-shot tickets at step 22 of 22" in capsys.readouterr().out
    assert (tmp_path / "run" / "results.csv").read_bytes() == before
    times = (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns
    run(config, tmp_path / "run")  # nothing is damaged, nothing is written
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns == times
