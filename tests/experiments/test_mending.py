"""What is damaged or missing in a finished run is found and made again at the next start, though nothing needs it."""

import shutil

import pytest

from lotto_jax.experiments.report import write
from lotto_jax.experiments.run import run
from lotto_jax.runs import results, tickets
from lotto_jax.runs.directory import RunDirectoryError
from lotto_jax.training import checkpoints
from tests import tiny

SETTINGS = {"seeds": (0,), "train__epochs": 1, "imp__rounds": 1, "imp__arms": ("winning",)}
TICKET = "both-winning-round01-seed0"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    path = tmp_path_factory.mktemp("mending") / "run"
    run(tiny.config(**SETTINGS), path)
    return path


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncated(path):
    path.write_bytes(path.read_bytes()[:10])


def deleted(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def sound(path):
    """The files of a run, once every state has been read."""
    for name in ("rounds", "snapshots"):
        store = checkpoints.Store(path / "checkpoints" / name)
        for step in store.steps():
            store.restore(step)
        store.close()
    files = [*(path / name for name in ("results.csv", "metrics.json", "progress.json")), *path.glob("tickets/*/[!.]*")]
    return {p.relative_to(path): p.read_bytes() for p in files}, {p.name for p in path.glob("checkpoints/[rs]*/*")}


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("results.csv", flipped),
        ("results.csv", deleted),
        ("metrics.json", truncated),
        ("progress.json", flipped),
        (f"tickets/{TICKET}/mask.safetensors", flipped),
        (f"tickets/{TICKET}/provenance.json", deleted),
        ("checkpoints/snapshots/3", deleted),
        ("checkpoints/snapshots/3/state/_sharding", truncated),
    ],
)
def test_the_next_start_makes_again_what_is_lost(done, tmp_path, file, damage):
    path = tmp_path / "run"
    shutil.copytree(done, path)
    damage(path / file)
    if file in ("metrics.json", "progress.json") and damage is not deleted:
        with pytest.raises(ValueError, match=rf"{file} is damaged: .* The command of its run mends it"):
            write(path)
    if file == "progress.json":
        run(tiny.config(**SETTINGS), path)
    else:
        with pytest.warns(UserWarning, match=r"damaged|missing|cannot be read|has no ticket"):
            run(tiny.config(**SETTINGS), path)
    assert sound(path) == sound(done)


def test_a_changed_number_that_is_kept_with_a_state_has_its_phase_trained_again(done, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(done, path)
    file = path / "checkpoints" / "rounds" / "1" / "meta" / "metadata"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.warns(UserWarning, match=r"checksum of its metadata .* Training round 1 of 1 again"):
        run(tiny.config(**SETTINGS), path)
    assert results.read(path) == results.read(done)
    assert tickets.names(path) == [TICKET]


def test_results_that_no_kept_state_has_are_not_silently_lost(tmp_path):
    settings = SETTINGS | {"imp__rounds": 2, "checkpoint__keep_states": "last"}
    run(tiny.config(**settings), tmp_path / "run")
    masks = [tmp_path / "run" / "tickets" / name / "mask.safetensors" for name in tickets.names(tmp_path / "run")]
    before = [mask.read_bytes() for mask in masks]
    for mask in masks:
        truncated(mask)
    with pytest.warns(UserWarning) as caught:
        run(tiny.config(**settings), tmp_path / "run")
    said = [str(warning.message) for warning in caught]
    assert len(said) == 2 and "Writing the tickets of round 2 of 2 again" in said[0]  # from its states, untrained
    assert f"The ticket {TICKET} of" in said[1] and "cannot be made again, since config.checkpoint.keep" in said[1]
    assert [mask.read_bytes() == old for mask, old in zip(masks, before, strict=True)] == [False, True]
    truncated(tmp_path / "run" / "results.csv")
    with pytest.raises(RunDirectoryError, match=r"results\.csv is damaged.*keep_states.*put back a copy"):
        run(tiny.config(**settings), tmp_path / "run")


def test_several_faults_at_once_are_mended_too(done, tmp_path):
    """A phase is trained again, and writes into files that are damaged themselves."""
    path = tmp_path / "run"
    shutil.copytree(done, path)
    shutil.rmtree(path / "checkpoints" / "rounds" / "0")
    for name in ("results.csv", "metrics.json"):
        truncated(path / name)
    with pytest.warns(UserWarning) as caught:
        run(tiny.config(**SETTINGS), path)
    assert any("Training the dense networks again" in str(warning.message) for warning in caught)
    assert sound(path) == sound(done)
