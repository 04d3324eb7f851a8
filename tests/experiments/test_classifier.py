"""A classifier is a run of no rounds; other runs load it by the name of its directory."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax import config as configuration
from lotto_jax.data import sources
from lotto_jax.experiments import classifier
from lotto_jax.experiments.report import write
from lotto_jax.experiments.run import run
from lotto_jax.runs.results import read as read_results
from lotto_jax.training.checkpoints import StorageError
from tests import tiny

pytestmark = pytest.mark.timeout(900)  # a ResNet-18 compiles for long on a busy machine


def test_a_classifier_is_trained_reported_and_loaded_with_the_accuracy_that_was_recorded(classifier_dir):
    recorded = {r.metric: r.value for r in read_results(classifier_dir)}
    assert recorded.keys() == {"loss", "accuracy"} and recorded["accuracy"] > 0.5
    assert "accuracy" in (text := write(classifier_dir)) and "unfinished" not in text
    loaded = classifier.load(classifier_dir)
    test = sources.load("digits").test
    variables = {"params": loaded.params, **loaded.model_state}
    apply = jax.jit(lambda variables, image: loaded.network.apply(variables, image, train=False))
    logits = apply(variables, jnp.asarray(test.image, jnp.float32) / 255)
    assert np.mean(np.argmax(logits, axis=1) == test.label) == pytest.approx(recorded["accuracy"], abs=0.005)
    assert loaded.network.classes == 10 and loaded.image_shape == (8, 8, 1) and loaded.dataset == "digits"
    assert loaded.identifier == classifier.load(classifier_dir).identifier
    assert loaded.identifier.startswith("resnet18-")


def test_a_classifier_of_other_images_is_one_sentence(classifier_dir):
    loaded = classifier.load(classifier_dir)
    loaded.check("digits", (8, 8, 1))
    for dataset, shape in (("mnist", (8, 8, 1)), ("digits", (16, 16, 1)), ("digits", (8, 8, 3))):
        wanted = f"digits images of 8x8x1, but this run has {dataset} images of {'x'.join(map(str, shape))}"
        with pytest.raises(ValueError, match=wanted):
            loaded.check(dataset, shape)


def test_what_is_no_finished_classifier_is_one_sentence(classifier_dir, tmp_path):
    with pytest.raises(ValueError, match="There is no classifier in"):
        classifier.load(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    run(tiny.config(imp__rounds=0), tmp_path / "other")
    with pytest.raises(ValueError, match="is of linear_autoencoder, which is no classifier"):
        classifier.load(tmp_path / "other")
    shutil.copytree(classifier_dir, tmp_path / "begun")
    shutil.rmtree(tmp_path / "begun" / "checkpoints" / "rounds")
    with pytest.raises(ValueError, match=r"No round of the run in .* is finished"):
        classifier.load(tmp_path / "begun")


def test_a_damaged_classifier_is_named(classifier_dir, tmp_path):
    shutil.copytree(classifier_dir, tmp_path / "run")
    for file in (tmp_path / "run" / "checkpoints" / "rounds" / "0" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(StorageError, match="Checkpoint 0"):
        classifier.load(tmp_path / "run")


def test_a_run_from_before_a_field_existed_has_its_default(classifier_dir):
    stored = json.loads((classifier_dir / "config.json").read_text())["config"]
    del stored["report"]
    restored = configuration.from_dict(stored)
    assert restored.to_dict() == tiny.classifier().to_dict()
    assert restored.is_locked and isinstance(restored.imp.arms, tuple)
