"""A search is analysed: numbers of an independent computation, siblings that start where tickets start, refusals."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from lotto_jax import cli
from lotto_jax.data import sources
from lotto_jax.experiments import EXPERIMENTS, build, siblings
from lotto_jax.experiments import analyse as module
from lotto_jax.experiments.analyse import analyse
from lotto_jax.experiments.run import run
from lotto_jax.reports import analysis as report
from lotto_jax.reports.sections import Source
from lotto_jax.runs import analysis, curves, kept
from lotto_jax.runs.results import read as read_results
from lotto_jax.training import checkpoints
from lotto_jax.training.preemption import Preempted, Preemption
from tests import tiny

ARMS = ("winning", "random", "random_pruned")


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """A finished search."""
    path = tmp_path_factory.mktemp("search") / "run"
    run(tiny.config(imp__arms=ARMS, imp__pruned=("both", "encoder")), path)
    return path


@pytest.fixture(scope="module")
def analysed(search, tmp_path_factory):
    """The same, analysed, with siblings."""
    path = tmp_path_factory.mktemp("analysed") / "run"
    shutil.copytree(search, path)
    analyse(path, copies=2)
    return path


def restored(path, number):
    with kept.opened(path) as store:
        state, tickets = store.restore(number), kept.tickets_of(store, number)
    params = jax.device_get(state["params"])
    return {t: jax.tree.map(lambda x, i=i: np.asarray(x[i], np.float64), params) for i, t in enumerate(tickets)}


def kernels(params):
    return [params[part]["dense"]["kernel"] for part in ("encoder", "decoder")]


def one(path, quantity, layer="all", **fields):
    rows = [r for r in analysis.read(path) if (r.quantity, r.layer) == (quantity, layer)]
    [row] = [r for r in rows if all(getattr(r, name) == value for name, value in fields.items())]
    return row.value


def pixels():
    test = sources.load("digits").test.image
    return test.reshape(len(test), -1) / 255.0


def loss(params, x):
    encoder, decoder = (params[part]["dense"] for part in ("encoder", "decoder"))
    code = np.maximum(x @ encoder["kernel"] + encoder["bias"], 0)
    return np.mean((code @ decoder["kernel"] + decoder["bias"] - x) ** 2)


def test_quantities_are_those_of_an_independent_computation(analysed):
    store = checkpoints.Store(analysed / "checkpoints" / "snapshots", alone=True)
    snapshot = jax.device_get(store.restore(3)["params"])
    store.close()
    last = {(t.pruned, t.arm, t.seed): params for t, params in restored(analysed, 2).items()}
    for seed in (0, 1):
        fields = {"pruned": "both", "round": 2, "seed": str(seed)}
        start = jax.tree.map(lambda x, seed=seed: np.asarray(x[seed], np.float64), snapshot)
        for arm in ("winning", "random_pruned"):
            ends = last["both", arm, seed]
            pairs = [(a[b != 0], b[b != 0]) for a, b in zip(kernels(start), kernels(ends), strict=True)]
            a, b = (np.concatenate(x) for x in zip(*pairs, strict=True))
            assert one(analysed, "distance", arm=arm, **fields) == pytest.approx(np.linalg.norm(a - b), rel=1e-5)
            relative = np.linalg.norm(a - b) / np.linalg.norm(a)
            assert one(analysed, "distance_relative", arm=arm, **fields) == pytest.approx(relative, rel=1e-5)
            encoder = ends["encoder"]["dense"]
            dead = np.sum(np.max(pixels() @ encoder["kernel"] + encoder["bias"], 0) <= 0)
            assert one(analysed, "dead_units", arm=arm, **fields) == dead
            assert one(analysed, "dead_share", arm=arm, **fields) == pytest.approx(dead / 8)
        winning = np.concatenate([x.ravel() for x in kernels(last["both", "winning", seed])])
        began = np.concatenate([x.ravel() for x in kernels(start)])
        same = np.mean(np.sign(winning)[winning != 0] == np.sign(began)[winning != 0])
        assert one(analysed, "signs_snapshot", arm="winning", **fields) == pytest.approx(same)
        assert one(analysed, "weights_left", arm="winning", **fields) == np.sum(winning != 0) == 655
    # The encoder alone was pruned: the decoder is no part of what is compared.
    a, b = (last["encoder", "winning", seed]["encoder"]["dense"]["kernel"] != 0 for seed in (0, 1))
    fields = {"pruned": "encoder", "round": 2, "arm": "winning", "seed": "0/1"}
    assert one(analysed, "jaccard_seeds", **fields) == pytest.approx(np.sum(a & b) / np.sum(a | b))
    chance = a.sum() * b.sum() / a.size
    expected = chance / (a.sum() + b.sum() - chance)
    assert one(analysed, "jaccard_seeds_expected", **fields) == pytest.approx(expected)


def test_random_tickets_travel_from_their_own_initialization(search, tmp_path, monkeypatch):
    """The way of a ticket that trains for no step is 0; one that is measured from elsewhere is not."""
    trained = module.Examined.phase

    def untrained(self, number):
        start = self.initial("both", max(number, 1))
        found = [t for t in trained(self, number) if t.ticket.arm == "random" and t.ticket.pruned == "both"]
        return [t._replace(params=start[t.ticket.seed][0]) for t in found]

    monkeypatch.setattr(module.Examined, "phase", untrained)
    shutil.copytree(search, tmp_path / "run")
    analyse(tmp_path / "run", ["distance"])
    rows = [r for r in analysis.read(tmp_path / "run") if r.quantity == "distance"]
    assert {r.arm for r in rows} == {"random"} and all(r.value == 0 for r in rows)


def test_barriers_are_those_of_losses_by_hand(analysed):
    x = pixels()

    def by_hand(a, b):
        line = [loss(jax.tree.map(lambda p, q, t=t: (1 - t) * p + t * q, a, b), x) for t in np.linspace(0, 1, 11)]
        return np.max(line - np.linspace(line[0], line[-1], 11))

    first, second = restored(analysed, 1), restored(analysed, 2)
    for seed in (0, 1):
        a, b = (
            next(p for t, p in phase.items() if (t.pruned, t.arm, t.seed) == ("encoder", "winning", seed))
            for phase in (first, second)
        )
        found = one(analysed, "barrier_rounds", pruned="encoder", round=2, seed=str(seed))
        assert found == pytest.approx(by_hand(a, b), abs=1e-6)
    copies = restored(analysed / "siblings", 2)
    a, b = (next(p for t, p in copies.items() if (t.arm, t.seed) == (f"sibling_{n}", 1)) for n in (1, 2))
    found = one(analysed, "barrier_siblings", round=2, seed="1")
    assert found == pytest.approx(by_hand(a, b), abs=1e-6)
    assert np.max(np.abs(a["encoder"]["dense"]["kernel"] - b["encoder"]["dense"]["kernel"])) > 1e-4


def test_a_sibling_with_the_same_order_of_the_data_is_the_ticket_itself(search, tmp_path, monkeypatch):
    monkeypatch.setattr(siblings, "other_keys", lambda keys, copy: keys)
    run(siblings.configured(search, 2, 1), tmp_path / "run")
    values = {(r.round, r.seed): r.value for r in read_results(search) if r.pruned == "both" and r.arm == "winning"}
    values |= {(0, r.seed): r.value for r in read_results(search) if r.arm == "dense"}
    rows = read_results(tmp_path / "run")
    assert len(rows) == 12 and all(r.value == values[r.round, r.seed] for r in rows)
    assert {p["step"] for p in curves.read(tmp_path / "run")} == set(range(4, 23))


def test_siblings_go_on_where_they_were_interrupted(search, analysed, tmp_path):
    class At(Preemption):
        looks = 4

        @property
        def requested(self):
            self.looks -= 1
            return self.looks < 0

    shutil.copytree(search, tmp_path / "run")
    with pytest.raises(Preempted):
        analyse(tmp_path / "run", ["barrier"], copies=2, preemption=At())
    assert not (tmp_path / "run" / "analysis.csv").exists()
    analyse(tmp_path / "run", ["barrier"], copies=2)
    assert read_results(tmp_path / "run" / "siblings") == read_results(analysed / "siblings")
    there = [r for r in analysis.read(analysed) if r.quantity.startswith("barrier")]
    assert analysis.read(tmp_path / "run") == there
    with pytest.raises(ValueError, match=r"holds a run of another configuration: siblings.copies \(2 there, 3 here\)"):
        analyse(tmp_path / "run", ["barrier"], copies=3)


def test_the_command_analyses_again_and_changes_nothing(analysed, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_report", lambda args: 0)  # drawing takes seconds
    before = (analysed / "analysis.csv").read_text()
    with pytest.raises(SystemExit) as end:
        cli.main(["analyse", f"--workdir={analysed}", "--only=signs,weights_left"])
    assert end.value.code == 0 and "weights_left: " in capsys.readouterr().out
    assert sorted((analysed / "analysis.csv").read_text().splitlines()) == sorted(before.splitlines())
    asked = Preemption()
    asked.requested = True
    with pytest.raises(Preempted):
        analyse(analysed, ["weights_left"], preemption=asked)
    with pytest.raises(SystemExit) as end:
        cli.main(["analyse", f"--workdir={analysed / 'nowhere'}"])
    assert end.value.code == 1 and "There is no run in" in capsys.readouterr().err


def test_the_report_shows_it(analysed):
    assert report.analysis in EXPERIMENTS["imp"].figures
    made = report.analysis(Source(analysed, {}, [], ""))
    assert [section.text[1][:31] for section in made] == [
        "Why tickets win (both pruned) (",
        "Why tickets win (encoder pruned",
    ]
    mean = np.mean([one(analysed, "dead_units", pruned="both", round=2, arm="winning", seed=s) for s in "01"])
    cells = made[0].text[-1].split()
    assert cells[:2] == ["2", "36.04%"] and float(cells[-1]) == pytest.approx(mean, rel=1e-3)
    for section in made:
        picture = np.asarray(Image.open(section.files[0]).convert("L"))
        assert picture.shape[0] > 500 and picture.std() > 5  # not blank
    assert report.analysis(Source(analysed / "siblings", {}, [], "")) == []


def test_what_a_run_did_not_keep_is_one_sentence(search, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(search, path)
    shutil.rmtree(path / "checkpoints" / "rounds" / "1")  # as config.checkpoint.keep_states = "last" does
    with pytest.raises(ValueError, match=r"did not keep the states of rounds 1 to 1, which .*keep_states = 'all'"):
        analyse(path)
    analyse(path, ["weights_left"])
    found = {(r.round, r.arm) for r in analysis.read(path)}
    assert found == {(1, "winning"), (2, "winning"), (2, "random_pruned")}
    with pytest.raises(ValueError, match="--only names 'sings'; it takes weights_left, overlap, signs"):
        analyse(path, ["sings"])
    shutil.rmtree(path / "tickets")
    with pytest.raises(ValueError, match="has no winning tickets; analyse a search"):
        analyse(path)


def test_a_game_of_two_networks_has_no_barrier():
    config = tiny.config(model={"name": "dcgan", "width": 2}, objective={"loss": "bce", "latent": 5})
    assert module.loss_of(build.objective(config, (32, 32, 3))) == ""
    assert module.loss_of(build.objective(tiny.config(), (8, 8, 1))) == "reconstruction_loss"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"siblings__source": ""}, "config.siblings.source is empty"),
        ({"siblings__source": "nowhere"}, "config.siblings.source: There is no run in nowhere"),
        ({"train__epochs": 3}, "config.train.epochs is 3, but 2 in the search in"),
        ({"siblings__copies": 1}, "config.siblings.copies is 1; it must be at least 2"),
    ],
)
def test_siblings_train_as_their_source_did(search, tmp_path, change, message):
    config = siblings.configured(search, 2, 1)
    for name, value in change.items():
        section, field = name.split("__")
        setattr(config[section], field, value)
    with pytest.raises(ValueError, match=message):
        run(config, tmp_path / "run")
    assert json.loads((search / "config.json").read_text())["config"]["experiment"] == "imp"
