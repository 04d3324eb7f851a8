"""Table 2 of a small autoencoder on digits of 8x8: its parts, what they cost, and metrics added later."""

import contextlib
import csv
import json
import shutil

import pytest

from lotto_jax.data import sources
from lotto_jax.experiments import run as runs
from lotto_jax.experiments.evaluate import evaluate
from lotto_jax.experiments.report import write
from lotto_jax.experiments.run import combine, feed_of, run
from lotto_jax.runs import provenance
from lotto_jax.runs.directory import RunDirectory
from lotto_jax.runs.results import read as read_results
from lotto_jax.training.preemption import Preempted
from tests import tiny

ARMS = {"dense", "winning", "snip", "early_bird"}


def config(**fields):
    settings = {
        "model": {"name": "conv_autoencoder", "width": 4, "latent": 5},
        "imp__arms": ("winning", "snip"),
        "early_bird__arms": ("early_bird",),
        "early_bird__interval": 2,
        "early_bird__lookback": 3,
    } | fields
    return tiny.config(
        experiment="table2",
        seeds=(0,),
        dataset__train_examples=128,
        train__batch_size=31,
        train__epochs=4,
        imp__fraction=0.5,
        parallel__tickets="sequential",
        checkpoint__every_seconds=60.0,
        **settings,
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    path = tmp_path_factory.mktemp("table2") / "run"
    run(config(), path)
    return path


def value(results, arm, metric, number=None):
    (found,) = [r.value for r in results if (r.arm, r.metric) == (arm, metric) and number in (None, r.round)]
    return found


def test_costs_are_those_of_all_trainings_that_a_ticket_needs(done):
    results = read_results(done)
    assert {r.arm for r in results} == ARMS
    dense = value(results, "dense", "flops")
    steps, rewind = 16, 3
    for number in (1, 2):
        trainings = steps + number * (steps - rewind)
        ratio = value(results, "winning", "flops", number) / (dense * trainings / steps)
        assert 1 < ratio < 1.002  # the rest is the pruning, of a network whose maps are small
        assert value(results, "snip", "flops", number) == pytest.approx(dense * (1 + 1 / steps), rel=0.02)
    weights = value(results, "dense", "weights")
    assert value(results, "winning", "weights", 2) == weights == value(results, "dense", "nonzero_weights")
    assert 1 / 4 < value(results, "winning", "nonzero_weights", 2) / weights < 1 / 3  # biases and norms stay
    assert value(results, "early_bird", "weights") < 0.6 * weights
    assert value(results, "early_bird", "flops") < 0.9 * dense
    assert value(results, "winning", "training_seconds", 2) > value(results, "winning", "training_seconds", 1) > 0


def test_the_report_has_the_table_as_text_markdown_and_csv_and_the_reports_of_both_parts(done):
    text = write(done)
    markdown = (done / "table2.md").read_text()
    for method in ("unpruned", "IMP", "SNIP", "early bird"):
        assert method in text and f"| {method} |" in markdown
    with open(done / "table2.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["method"], float(r["compression"])) for r in rows[:2]] == [("unpruned", 0), ("IMP", 0.5)]
    results = read_results(done)
    assert float(rows[0]["reconstruction_loss"]) == pytest.approx(value(results, "dense", "reconstruction_loss"))
    for file in ("report.html", "figures/costs.png", "imp/report.html", "early_bird/report.html"):
        assert (done / file).stat().st_size > 1000


def test_metrics_are_added_to_both_parts_whatever_the_width(done, classifier_dir, tmp_path):
    shutil.copytree(done, tmp_path / "run")
    done = tmp_path / "run"
    evaluate(done, ("accuracy",), classifier_dir)
    evaluate(done, ("accuracy",), classifier_dir, every=2, force=True)
    measured = [r for r in read_results(done) if r.metric == "accuracy"]
    assert {r.arm for r in measured} == ARMS and all(0 <= r.value <= 1 for r in measured)
    assert {r.round for r in measured if r.arm in ("winning", "snip")} == {2}
    assert "accuracy" in write(done) and "resnet18-" in (done / "report.html").read_text()
    part, feed = done / "imp" / "metrics.json", feed_of(config(), sources.load(**config().dataset))
    with contextlib.closing(RunDirectory(done, config())) as directory:
        entries = part.read_text()
        provenance.write(part.parent, json.loads(entries.replace(str(classifier_dir), "moved")))
        combine(config(), feed, directory, ("imp", "early_bird"))
        provenance.write(part.parent, json.loads(entries.replace("resnet18-", "resnet18-other-")))
        with pytest.raises(ValueError, match=r"accuracy was not measured alike .* --force"):
            combine(config(), feed, directory, ("imp", "early_bird"))


def test_an_interrupted_run_is_reported_as_unfinished_and_goes_on(done, tmp_path, monkeypatch):
    whole = runs.Run.run

    def interrupted(self):
        if self.config.experiment == "early_bird":
            raise Preempted
        whole(self)

    with monkeypatch.context() as patch, pytest.raises(Preempted):
        patch.setattr(runs.Run, "run", interrupted)
        run(config(), tmp_path / "run")
    assert "(unfinished: no early_bird yet)" in write(tmp_path / "run")
    assert {r.arm for r in read_results(tmp_path / "run")} == ARMS - {"early_bird"}
    run(config(), tmp_path / "run")
    untimed = lambda path: [r for r in read_results(path) if not r.metric.endswith(("_seconds", "accuracy"))]  # noqa: E731
    assert untimed(tmp_path / "run") == untimed(done)
    assert "unfinished" not in write(tmp_path / "run")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"early_bird__threshold": 1.0}, r"early_bird.threshold is 1\.0"),
        ({"imp__arms": ("winning", "random")}, "Table 2 has winning, snip and grasp"),
        ({"imp__pruned": ("both", "encoder")}, "one choice of components"),
        ({"early_bird__arms": ("dense", "early_bird")}, "holds 'dense', which Table 2 has"),
        ({"checkpoint__keep_states": "last"}, "keep_states must be 'all'"),
        ({"precision": "float16"}, "whose scores get lost in float16"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_trains(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        run(config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()
