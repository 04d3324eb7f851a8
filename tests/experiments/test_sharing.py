"""Searches that differ in their rewind step share their dense networks, with the results of training these anew."""

import pytest

from lotto_jax.experiments.run import run
from lotto_jax.experiments.sharing import share_dense
from lotto_jax.experiments.trainer import Trainer
from lotto_jax.runs import curves
from lotto_jax.runs.results import read as read_results
from tests import tiny


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A search that rewinds to step 3 and also keeps steps 0 and 5."""
    path = tmp_path_factory.mktemp("source") / "run"
    run(tiny.config(imp__rounds=1, imp__rewind_steps=(0, 5), evaluation__points=2), path)
    return path


def test_sharing_is_training_anew(source, tmp_path, monkeypatch):
    config = tiny.config(imp__rounds=1, imp__rewind_step=5, imp__rewind_steps=(0,), evaluation__points=2)
    run(config, tmp_path / "anew")
    share_dense(source, config, tmp_path / "shared")
    share_dense(source, config, tmp_path / "shared")  # again, which is harmless
    whole, begun = Trainer.train, []

    def noted(self, phase, *rest):
        begun.append(phase)
        return whole(self, phase, *rest)

    monkeypatch.setattr(Trainer, "train", noted)
    run(config, tmp_path / "shared")
    assert begun == [1]  # the dense networks are there
    assert read_results(tmp_path / "shared") == read_results(tmp_path / "anew")
    for name in (curves.CURVES, curves.HELD_OUT):
        there = curves.read(tmp_path / "anew", name)
        assert curves.read(tmp_path / "shared", name) == there and {point["round"] for point in there} == {0, 1}
    assert (tmp_path / "shared" / "metrics.json").read_text() == (tmp_path / "anew" / "metrics.json").read_text()
    other = [r.value for r in read_results(source) if r.arm == "winning"]
    assert other != [r.value for r in read_results(tmp_path / "shared") if r.arm == "winning"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"imp__rewind_step": 4}, "kept no state of step 4; name it in its config.imp.rewind_steps"),
        ({"train__epochs": 3}, "config.train.epochs is 3, but 2 in .* differ in config.imp.rewind_step only"),
    ],
)
def test_what_cannot_be_shared_is_one_sentence(source, tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        share_dense(source, tiny.config(imp__rounds=1, evaluation__points=2, **fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_rewind_step_beyond_training_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="rewind_steps holds 22, but training has 22 steps; it takes integers from 0"):
        run(tiny.config(imp__rewind_steps=(22,)), tmp_path / "run")
