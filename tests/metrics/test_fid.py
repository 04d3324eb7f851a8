"""Extraction and distances of images, with a small network in place of Inception."""

import argparse
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lotto_jax import cli_metrics
from lotto_jax.metrics import (
    extractors,
    fid,
    fid_folds,
    frechet,
    images,
    metric_name,
    reference_statistics,
    statistics,
    to_uint8,
    weights,
)


def _apply(params, x):
    pooled = jnp.mean(x / 255.0, axis=(1, 2))
    return {"a": jnp.tanh(pooled @ params), "b": jnp.max(x, axis=(1, 2))}


@pytest.fixture
def small() -> extractors.Extractor:
    params = jax.random.normal(jax.random.key(0), (3, 5))
    return extractors.Extractor("small", "small-1", params, _apply, "a")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTO_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pictures() -> np.ndarray:
    rng = np.random.default_rng(0)
    tint = rng.uniform(0, 255, (83, 1, 1, 3))
    return np.clip(tint + rng.normal(0, 20, (83, 6, 4, 3)), 0, 255).astype(np.uint8)


def write(folder, pictures):
    folder.mkdir()
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{index:04d}.png")
    return folder


def test_features_do_not_depend_on_batches_or_source(small, pictures, tmp_path):
    expected = extractors.features(pictures, small, ("a", "b"), batch_size=83)
    np.testing.assert_allclose(
        expected["a"], _apply(small.params, jnp.asarray(pictures, jnp.float32))["a"], rtol=1e-5, atol=1e-6
    )
    assert np.array_equal(expected["b"], pictures.max(axis=(1, 2)))
    folder = write(tmp_path / "images", pictures)
    sources = [
        pictures,
        jnp.asarray(pictures),
        folder,
        str(folder),
        (pictures[i : i + 10] for i in range(0, 83, 10)),
    ]
    for source, size in zip(sources, (1, 16, 7, 64, 5), strict=True):
        found = extractors.features(source, small, ("a", "b"), batch_size=size)
        assert found["a"].shape == (83, 5) and found["a"].dtype == np.float32
        np.testing.assert_allclose(found["a"], expected["a"], rtol=1e-6, atol=1e-6)
        assert np.array_equal(found["b"], expected["b"])


def test_images_are_sharded_over_all_devices(small, pictures):
    assert len(jax.local_devices()) == 8
    seen = []

    def apply(params, x):
        jax.debug.inspect_array_sharding(x, callback=lambda sharding: seen.append(sharding.shard_shape(x.shape)))
        return _apply(params, x)

    extractors.features(pictures[:32], small._replace(apply=apply), batch_size=32)
    assert seen == [(4, 6, 4, 3)]


def test_images_on_the_device_stay_there(small, pictures):
    on_device = jnp.asarray(pictures[:64])
    small = small._replace(params=jax.device_put(small.params))
    expected = extractors.features(on_device, small, batch_size=64)
    with jax.transfer_guard_host_to_device("disallow"):  # raises at the first transfer
        found = extractors.features(on_device, small, batch_size=64)
    np.testing.assert_array_equal(found["a"], expected["a"])


def test_floats_in_minus_one_to_one_are_the_same_images(small, pictures):
    floats = pictures.astype(np.float32) / 127.5 - 1
    found = extractors.features(floats, small)["a"]
    np.testing.assert_allclose(found, extractors.features(pictures, small)["a"], rtol=1e-4, atol=1e-6)


def test_to_uint8_rounds_and_clips():
    found = to_uint8(jnp.asarray([-0.1, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 1.2]))
    assert found.dtype == jnp.uint8 and found.tolist() == [0, 0, 0, 1, 255, 255]


def test_fid_of_arrays_folders_and_files_agree(small, pictures, tmp_path):
    a, b = pictures[:40], pictures[40:] // 2
    sides = [frechet.gaussian(frechet.moments(extractors.features(x, small)["a"])) for x in (a, b)]
    expected = frechet.frechet_distance(*sides)
    assert expected > 0.01
    frechet.save(tmp_path / "b.npz", sides[1], small.identifier)
    folder = write(tmp_path / "images", a)
    for source, reference in (
        (a, b),
        (folder, tmp_path / "b.npz"),
        (iter([a[:33], a[33:]]), str(tmp_path / "b.npz")),
    ):
        assert fid(source, reference, small) == pytest.approx(expected, rel=1e-5)


def test_folds_have_mean_and_standard_error(small, pictures):
    reference = pictures[::-1] // 2
    found = fid_folds(pictures, reference, small, folds=4, batch_size=9)
    expected = [fid(pictures[i::4], reference, small) for i in range(4)]
    assert found.values == pytest.approx(expected, rel=1e-5)
    assert found.mean == pytest.approx(np.mean(expected), rel=1e-5)
    assert found.standard_error == pytest.approx(np.std(expected, ddof=1) / 2, rel=1e-4)
    assert found.images == 20


def test_reference_statistics_are_kept_and_never_stale(small, pictures, tmp_path, cache):
    calls = []

    def counted(source, extractor):
        apply = extractor.apply

        def fresh(params, x):
            calls.append(1)  # traced once a call of `features`, as the function is new
            return apply(params, x)

        return reference_statistics(source, extractor._replace(apply=fresh))

    folder = write(tmp_path / "images", pictures[:30])
    for source in (pictures, folder):
        calls.clear()
        first = counted(source, small)
        assert len(calls) == 1
        again = counted(source, small)
        assert len(calls) == 1 and np.array_equal(first.covariance, again.covariance)
    counted(pictures[:-1], small)
    Image.fromarray(pictures[50]).save(folder / "9999.png")
    assert counted(folder, small).number == 31
    assert len(list((cache / "statistics").glob("*.npz"))) == 4
    counted(pictures, small._replace(identifier="small-2"))
    assert len(list((cache / "statistics").glob("*.npz"))) == 5


def test_only_inception_features_are_called_fid(small):
    assert metric_name(small) == "fd_small"
    assert metric_name(small._replace(name="inception")) == "fid"


def test_few_images_warn_of_the_bias(small, pictures):
    with pytest.warns(UserWarning, match="generated: 4 images are fewer than the 5 features.* biased upward"):
        fid(pictures[:4], pictures, small)


def test_grayscale_is_replicated_and_said(small, pictures, caplog):
    images._say_replicated.cache_clear()
    gray = pictures[..., 0]
    with caplog.at_level(logging.WARNING):
        found = extractors.features(gray, small)["a"]
    assert "replicated to three channels" in caplog.text
    assert np.array_equal(found, extractors.features(np.stack([gray] * 3, axis=-1), small)["a"])


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (np.zeros((2, 3, 8, 8), np.uint8), r"shape \(2, 3, 8, 8\); expected .* \(channels last\)"),
        (np.zeros((2, 8), np.uint8), r"shape \(2, 8\)"),
        (np.zeros((8, 8, 3), np.uint8), "the shape of a single image; stack images"),
        (iter(np.zeros((2, 8, 8, 3), np.uint8)), "the shape of a single image; stack images"),
        (iter([np.zeros((64, 8, 8, 3), np.float32), np.full((1, 8, 8, 3), 9.0)]), "found 9 to 9"),
        (np.zeros((2, 8, 8, 3), np.int32), "dtype int32; expected uint8, or float"),
        (np.full((2, 8, 8, 3), 200.0, np.float32), r"must lie in \[-1, 1\], found 200 to 200"),
        (np.full((2, 8, 8, 3), np.nan, np.float32), r"must lie in \[-1, 1\], found nan"),
        (np.zeros((0, 8, 8, 3), np.uint8), "No images were given"),
        ("no/such/folder", "There is no folder no/such/folder"),
    ],
)
def test_bad_images_are_named(small, source, sentence):
    with pytest.raises(ValueError, match=sentence):
        statistics(source, small)


def test_bad_folders_are_named(small, pictures, tmp_path):
    folder = write(tmp_path / "images", pictures[:3])
    whole = (folder / "0001.png").read_bytes()
    (folder / "0001.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"0001\.png cannot be read"):
        statistics(folder, small)
    (tmp_path / "cut.ppm").write_bytes(b"P6 4 6 255 abc")
    with pytest.raises(ValueError, match=r"cut\.ppm cannot be read"):
        images.read_image(tmp_path / "cut.ppm")
    Image.fromarray(pictures[0, :5]).save(folder / "0001.png")
    with pytest.raises(ValueError, match=r"0001\.png is 4x5, but 0000\.png is 4x6"):
        statistics(folder, small)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no images"):
        statistics(tmp_path / "empty", small)
    with pytest.raises(ValueError, match="cannot be divided into folds"):
        fid_folds("a.npz", pictures, small)
    with pytest.raises(ValueError, match="need at least 20 images, found 12"):
        fid_folds(pictures[:12], pictures, small)


def test_inception_without_weights_or_with_an_unknown_resize():
    with pytest.raises(FileNotFoundError, match="weights fetch"):
        extractors.inception()
    with pytest.raises(ValueError, match="Unknown resize 'lanczos'; choose one of tf1, pytorch, clean"):
        extractors.inception(resize="lanczos")


def test_commands_print_what_they_did(small, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(extractors, "inception", lambda path, resize, dtype: small)
    parser = argparse.ArgumentParser()
    cli_metrics.add_fid_arguments(parser)
    a, b = write(tmp_path / "a", pictures[:40]), write(tmp_path / "b", pictures[40:])
    cli_metrics.run_fid(parser.parse_args([str(a), str(b), "--folds", "4"]))
    printed = capsys.readouterr().out
    assert f"FID {fid(a, b, small):.4f}  (small-1)" in printed
    assert "FID over 4 folds of 10 images: " in printed

    parser = argparse.ArgumentParser()
    cli_metrics.add_weights_arguments(parser)
    monkeypatch.setattr(weights, "convert", lambda path, output: output)
    monkeypatch.setattr(weights, "read", lambda path: {})  # of neither DINOv2 nor CLIP
    cli_metrics.run_weights(parser.parse_args(["convert", "w.pth", "--output", "w.safetensors"]))
    assert capsys.readouterr().out == "Wrote w.safetensors\n"
