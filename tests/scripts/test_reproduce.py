"""What reproduces the paper: the plan's order and work, and documents that say what the code and the runs say."""

import json
import re
from pathlib import Path

import pytest

from lotto_jax import config as configuration
from lotto_jax.cli import load_config
from lotto_jax.reports import paper
from scripts import reproduce, results

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
ROOT = Path(__file__).resolve().parents[2]


def test_the_plan_of_a_figure_has_what_it_needs_before_it(tmp_path):
    plan = reproduce.plan("cpu", ["fig8"], tmp_path, "/data")
    names = [run.name for run in plan]
    assert sorted(names) == sorted(
        [
            "resnet18_cifar10-cpu",
            "vae_cifar10-cpu-decoder",
            "dcgan_cifar10-cpu-generator",
            "transfer_vae_to_dcgan_cifar10-cpu",
            "transfer_dcgan_to_vae_cifar10-cpu",
        ]
    )
    for run in plan:
        assert all(names.index(need) < names.index(run.name) for need in run.needs)
        configuration.validate(reproduce._config(run))
    (transfer,) = [run for run in plan if run.name.startswith("transfer_vae")]
    assert f"--config.transfer.source={tmp_path}/vae_cifar10-cpu-decoder" in transfer.overrides


def test_all_runs_of_the_paper_are_valid_and_each_is_identified_as_what_it_is_for(tmp_path):
    plan = reproduce.plan("paper", [], tmp_path)
    assert {name for run in plan for name in run.shows} == set(reproduce.artifacts())
    for run in plan:
        config = reproduce._config(run)
        configuration.validate(config)
        stem, _, variant = run.source.removeprefix("configs/").partition(":")
        expected = stem.removesuffix(".py") + (f":{variant}" if variant else "")
        assert paper.identify(configuration.as_dict(config)) == expected


def test_ticket_steps_are_those_that_preflight_counted():
    """docs/costs.md has them from `lotto-jax preflight`."""
    told = dict(re.findall(r"^\| `(\w+)` \| ([0-9,]+) \|", (ROOT / "docs" / "costs.md").read_text(), re.MULTILINE))
    for name in ("linear_ae_mnist", "vae_cifar10", "dcgan_celeba", "wgan_cifar10"):
        assert reproduce.ticket_steps(load_config(name, [])) == int(told[name].replace(",", ""))
    assert reproduce.on_one_chip()["dcgan_cifar10"] * int(
        told["dcgan_cifar10"].replace(",", "")
    ) / 3600 == pytest.approx(61)


def test_the_statement_names_runs_and_what_is_unknown(tmp_path):
    text = reproduce.statement(reproduce.plan("paper", ["table2"], tmp_path), "paper", tmp_path)
    assert text.startswith("2 runs in") and "table2_dcgan_cifar10 (table2): ticket-steps depend" in text
    assert "2 runs of unknown time" in text


def test_the_documents_are_what_is_generated():
    assert reproduce.FIGURES.read_text() == reproduce.figures(), "run scripts/reproduce.py --docs"
    assert reproduce.readme() in reproduce.README.read_text(), "run scripts/reproduce.py --docs"
    assert results.written(results.PAGE.read_text()) == results.PAGE.read_text(), "run scripts/results.py --docs"
    assert results.readme_disagrees() == []


def test_kept_curves_are_means_of_few_points():
    log = [
        {"position": t, "arm": "dense", "seed": s, "step": t, "loss": float(t + s)}
        for t in range(1, 601)
        for s in (0, 1)
    ]
    kept = results.thinned(log)
    assert len(kept) == 2 * results.POINTS and [p["step"] for p in kept[:4]] == [3, 3, 6, 6]
    assert [p["loss"] for p in kept[:4]] == [2.0, 3.0, 5.0, 6.0]  # means of three
    assert kept[-1]["step"] == 600


def test_a_mean_and_a_spread_are_kept_by_the_numbers_that_stand_for_them():
    import statistics

    values = results.spread(46.6, 5.9, 3)
    assert statistics.fmean(values) == pytest.approx(46.6) and statistics.stdev(values) == pytest.approx(5.9)


def test_a_kept_run_does_not_say_where_it_lay(tmp_path):
    run = tmp_path / "flow"
    run.mkdir()
    begun = {"command": f"lotto-jax run --workdir={run} --config.transfer.source={run}2"}
    config = {"transfer": {"source": f"{run}2"}}
    (run / "config.json").write_text(json.dumps({"format": 2, "config": config, "begun": begun}))
    results.keep(run, tmp_path / "flow_mixture", "diffusion_mixture")
    told = json.loads((tmp_path / "flow_mixture" / "config.json").read_text())
    source = "runs/diffusion_mixture"
    assert told["begun"]["command"] == f"lotto-jax run --workdir=runs/flow_mixture --config.transfer.source={source}"
    assert told["config"]["transfer"]["source"] == source
