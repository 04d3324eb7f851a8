"""Tickets as files: what a search found, started from by a program that shares nothing with it."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax import cli, pruning, tickets
from lotto_jax.data import sources
from lotto_jax.experiments import build
from lotto_jax.experiments.imported import import_ticket
from lotto_jax.experiments.run import run
from lotto_jax.runs.results import read as read_results
from tests import tiny

NAME = "both-winning-round02-seed1"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A finished search, and a ticket of it in a file."""
    path = tmp_path_factory.mktemp("tickets")
    run(tiny.config(), path / "run")
    tickets.export(path / "run", NAME, path / "ticket.safetensors")
    return path / "run", path / "ticket.safetensors"


def test_training_the_exported_ticket_gives_the_loss_that_the_search_recorded(exported):
    """Weights of step 3 and the mask alone: SGD has no state, so the rest of the training is the same."""
    path, _ = exported
    config = tiny.config(optimizer={"name": "sgd", "learning_rate": 0.1}, imp__rounds=1)
    directory = path.parent / "sgd"
    run(config, directory)
    tickets.export(directory, "both-winning-round01-seed0", directory / "t.safetensors")
    ticket = tickets.load(directory / "t.safetensors")
    data = sources.load("digits")
    objective = build.objective(config, data.image_shape)
    from lotto_jax.training import loop, mesh, packing

    state = objective.init(jax.random.key(0))._replace(params=ticket.params, step=jnp.int32(3), key=jax.random.key(0))
    states, mask = jax.tree.map(lambda x: jnp.asarray(x)[None], (state, ticket.mask))

    train, test = (packing.pack(*split) for split in (data.train, data.test))
    on = mesh.make(1, 1, 1)
    states, _, _ = loop.train(
        objective, states, mask, train, jnp.int32(3), jnp.int32(22), batch_size=127, length=22, mesh=on
    )
    found = loop.evaluate(objective, states.params, {}, states.key, test, batch_size=500, mesh=on)
    row = next(r for r in read_results(directory) if (r.arm, r.seed) == ("winning", 0))
    np.testing.assert_allclose(found["reconstruction_loss"][0], row.value, rtol=1e-5)


def test_the_file_holds_the_mask_the_weights_and_where_they_come_from(exported):
    path, file = exported
    ticket = tickets.load(file)
    stored = json.loads((path / "tickets" / NAME / "provenance.json").read_text())
    assert ticket.provenance.items() >= stored.items() and ticket.provenance["seed"] == 1
    assert float(pruning.sparsity(jax.tree.map(jnp.asarray, ticket.mask))) == pytest.approx(stored["sparsity"])
    pruning.check(ticket.params, jax.tree.map(jnp.asarray, ticket.mask))
    like = jax.eval_shape(build.objective(tiny.config(), (8, 8, 1)).init, jax.random.key(0)).params
    assert jax.tree.structure(tickets.load(file, like).params) == jax.tree.structure(like)


def test_one_that_does_not_fit_names_the_first_leaf_that_differs(exported, tmp_path):
    _, file = exported
    wide = tiny.config(model={"name": "linear_autoencoder", "latent": 9})
    run(wide.copy_and_resolve_references(), tmp_path / "wide")
    with pytest.raises(ValueError, match=r"has shape \(8,\) at 'decoder/dense/|has shape .* at 'decoder/dense/kernel'"):
        import_ticket(tmp_path / "wide", file)
    params = tickets.load(file).params
    with pytest.raises(ValueError, match="has no leaf 'extra', which the network has"):
        tickets.load(file, {**params, "extra": np.zeros(1)})
    with pytest.raises(ValueError, match="has a leaf 'encoder/dense/bias' that the network lacks"):
        tickets.load(file, {"decoder": params["decoder"]})


def test_a_damaged_or_missing_file_is_one_sentence(exported, tmp_path):
    _, file = exported
    (tmp_path / "cut").write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged, or no ticket"):
        tickets.load(tmp_path / "cut")
    with pytest.raises(FileNotFoundError, match=r"no ticket file .*lotto-jax ticket export"):
        tickets.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="has no ticket 'lucky'; it has both-winning"):
        tickets.export(exported[0], "lucky", tmp_path / "out")


def test_the_commands_list_export_show_and_import(exported, tmp_path, capsys):
    path, _ = exported
    file = tmp_path / "t.safetensors"
    for arguments in (
        ["export", f"--workdir={path}"],
        ["export", f"--workdir={path}", f"--name={NAME}", str(file)],
        ["show", str(file)],
        ["import", f"--workdir={path}", str(file)],
    ):
        with pytest.raises(SystemExit) as end:
            cli.main(["ticket", *arguments])
        assert end.value.code == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert NAME in printed and "encoder/dense/kernel" in printed
    assert (path / "tickets" / "imported" / "t.safetensors").read_bytes() == file.read_bytes()


def test_a_new_directory_runs_as_it_is_and_can_be_evaluated(tmp_path):
    """A network without dtype, a metric with a direction, both by reference."""

    def lotto_jax(*arguments):
        command = [sys.executable, "-c", "from lotto_jax.cli import main; main()", *arguments]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
        assert result.returncode == 0, result.stderr
        return result.stdout

    lotto_jax("new", "mine")
    small = ["--config.train.epochs=1", "--config.imp.rounds=1", "--config.seeds=(0, 1)"]
    assert "psnr" in lotto_jax("run", "--config=mine/my_config.py", "--workdir=run", *small)
    rows = read_results(tmp_path / "run")
    assert {r.metric for r in rows} == {"reconstruction_loss", "psnr"}
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["psnr"]["better"] == "higher"
    before = (tmp_path / "run" / "results.csv").read_bytes()
    assert "psnr" in lotto_jax("evaluate", "--workdir=run", "--force")  # finds the metric where the run found it
    assert sorted((tmp_path / "run" / "results.csv").read_bytes().split()) == sorted(before.split())
