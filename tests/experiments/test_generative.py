"""Searches on VAEs and GANs, on digits of 8x8."""

import csv

import numpy as np
import pytest
from safetensors.numpy import load

from lotto_jax.experiments.report import write
from lotto_jax.experiments.run import run
from lotto_jax.objectives import adversarial
from lotto_jax.reports import summary
from lotto_jax.runs.results import read as read_results
from tests import tiny


def gan(**fields):
    """Trained fast enough for samples to differ: those of a fresh generator are all the same gray."""
    settings = {"optimizer": {"name": "adam", "learning_rate": 0.02, "b1": 0.5}} | fields
    return tiny.config(
        dataset__train_examples=128,
        model={"name": "dcgan", "width": 2},
        objective={"name": "adversarial", "loss": "bce", "latent": 5},
        train__batch_size=31,  # odd, and one by one: on one device, where tiny things compile fastest
        parallel__tickets="sequential",
        imp__rounds=1,
        imp__fraction=0.5,
        train__epochs=5,
        **settings,
    )


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    path = tmp_path_factory.mktemp("gan") / "run"
    run(gan(imp__pruned=("both", "generator"), evaluation__images=2), path)
    return path


def test_a_gan_search_records_its_losses_over_the_whole_networks_sparsity(searched):
    results = read_results(searched)
    assert {r.metric for r in results} == {"generator_loss", "discriminator_loss", "collapsed"}
    sparsity = {r.pruned: r.sparsity for r in results if r.arm == "winning"}
    assert sparsity["both"] == pytest.approx(0.5, abs=1e-3)
    assert 0.2 < sparsity["generator"] < 0.45  # half of the generator, but less of both networks
    assert all(np.isfinite(r.value) for r in results)


def test_sample_grids_come_from_the_same_latent_vectors_and_an_unchanged_generator_gives_unchanged_samples(searched):
    pictures = load((searched / "images.safetensors").read_bytes())
    dense = pictures["samples/dense/0.000000"]
    assert dense.shape == (2, 8, 8, 1) and dense.dtype == np.uint8
    assert not any(name.startswith("reconstructions") for name in pictures)
    text = write(searched)
    assert "samples.png" in text and "collapsed" not in text
    again = load((searched / "images.safetensors").read_bytes())
    np.testing.assert_array_equal(again["samples/dense/0.000000"], dense)


def test_a_gan_that_breaks_down_is_marked_and_not_averaged(tmp_path):
    """A learning rate of 1e30 overflows after the first updates, and the run goes on."""
    run(gan(optimizer={"name": "sgd", "learning_rate": 1e30}), tmp_path / "run")
    results = read_results(tmp_path / "run")
    assert {r.value for r in results if r.metric == "collapsed"} == {1.0}
    points = summary.points(results, "discriminator_loss")
    assert all(p.values == () and p.collapsed == 2 for p in points)
    text = write(tmp_path / "run")
    assert "2 of 2 collapsed" in text
    sentence = "All tickets collapsed: discriminator_loss has no values to draw."
    assert sentence in text and sentence in (tmp_path / "run" / "report.html").read_text()
    assert not (tmp_path / "run" / "figures" / "discriminator_loss_against_sparsity.png").exists()  # no empty axes
    with open(tmp_path / "run" / "results.csv", newline="") as file:
        assert {row["metric"] for row in csv.DictReader(file)} >= {"collapsed", "discriminator_loss"}


def test_samples_that_do_not_differ_are_a_collapse():
    rng = np.random.default_rng(0)
    varied = np.clip(rng.normal(size=(8, 4, 4, 1)), -1, 1).astype(np.float32)
    assert not adversarial.is_collapsed(varied)
    assert adversarial.is_collapsed(np.repeat(varied[:1], 8, axis=0))
    assert adversarial.is_collapsed(np.where(varied > 0.9, np.nan, varied))


def test_a_vae_search_draws_reconstructions_and_samples(tmp_path):
    config = tiny.config(
        dataset__train_examples=128,
        model={"name": "vae", "latent": 4, "width": 2},
        objective={"name": "elbo", "beta": 4.0},
        train__batch_size=31,  # odd: the batch is not split over devices
        imp__rounds=1,
        imp__arms=("winning",),  # as many tickets as dense networks, so that one program trains both
        imp__fraction=0.5,
        parallel__tickets="vmap",
        evaluation__images=2,
    )
    run(config, tmp_path / "run")
    assert {r.metric for r in read_results(tmp_path / "run")} == {"loss", "reconstruction_loss", "kl"}
    assert "samples.png" in (text := write(tmp_path / "run")) and "reconstructions.png" in text


def test_more_rounds_than_weights_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"config.imp.rounds is 60, but round \d+ would find only \d+ of 1024 weights"):
        run(tiny.config(imp__rounds=60, imp__fraction=0.5), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_component_that_the_network_lacks_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"config.imp.pruned names 'encoder', but dcgan has generator, discriminator"):
        run(gan(imp__pruned=("encoder",)), tmp_path / "run")


def test_an_image_size_that_the_network_cannot_take_is_one_sentence(tmp_path):
    config = gan()
    config.dataset.image_size = 24
    with pytest.raises(ValueError, match="image_size is 24; this network takes square images"):
        run(config, tmp_path / "run")
