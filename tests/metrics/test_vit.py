"""DINOv2 and CLIP with small random weights: files and features. tests/parity compares with PyTorch."""

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from lotto_jax import cli
from lotto_jax.metrics import extractors, features, vit, vit_weights

SMALL = {
    "dinov2": vit.DINOV2._replace(size=8, patch=4, width=12, depth=2, heads=3, hidden=20, trained=3),
    "clip": vit.CLIP._replace(size=8, patch=4, width=12, depth=2, heads=3, hidden=20, trained=2, projection=5),
}


def tensors_of(network, seed=0):
    rng = np.random.default_rng(seed)
    shapes = vit_weights.expected_shapes(network)
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The networks, small, and an empty cache."""
    monkeypatch.setenv("LOTTO_JAX_CACHE", str(tmp_path / "cache"))
    for name, network in SMALL.items():
        monkeypatch.setitem(vit.NETWORKS, name, network)
    vit.apply.cache_clear()
    yield
    vit.apply.cache_clear()


@pytest.mark.parametrize("name", SMALL)
def test_a_checkpoint_is_converted_by_the_command_and_makes_features(small, name, tmp_path, capsys):
    unread = {"pooler.weight": np.zeros((2, 2), np.float32)}  # of the text's network, and the like
    save_file(tensors_of(SMALL[name]) | unread, tmp_path / "model.safetensors")
    with pytest.raises(SystemExit) as ended:
        cli.main(["weights", "convert", str(tmp_path / "model.safetensors")])
    assert not ended.value.code and str(vit_weights.default_path(name)) in capsys.readouterr().out
    extractor = extractors.transformer(name)
    images = np.random.default_rng(1).integers(0, 256, (8, 8, 8, 3), np.uint8)
    found = features(images, extractor)["class"]
    assert found.shape == (8, 5 if name == "clip" else 12) and np.isfinite(found).all()
    assert extractors.metric_name(extractor) == f"fd_{name}"
    # Every image by itself: tokens of one never meet those of another.
    alone = extractor.apply(extractor.params, jnp.asarray(images[3:4], jnp.float32))["class"]
    np.testing.assert_allclose(found[3:4], alone, rtol=1e-4, atol=1e-5)


def test_weights_that_are_missing_or_foreign_are_one_sentence(small, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No weights of clip at .*: download model.safetensors of openai/clip"):
        extractors.transformer("clip")
    path, network = tmp_path / "model.safetensors", SMALL["dinov2"]
    good = tensors_of(network)
    for name, change, message in (
        ("layernorm.bias", lambda x: None, r"has no 'layernorm.bias'; use the file of facebook/dinov2-base"),
        ("layernorm.bias", lambda x: x[:3], r"'layernorm.bias' has shape \(3,\), expected \(12,\)"),
        ("layernorm.bias", lambda x: x * np.nan, "not finite"),
    ):
        changed = {key: change(value) if key == name else value for key, value in good.items()}
        with pytest.raises(ValueError, match=message):
            vit_weights.convert(path, {k: v for k, v in changed.items() if v is not None}, network, None)
    file = vit_weights.convert(path, good, network, None)
    save_file(good | {"layernorm.bias": good["layernorm.bias"] + 1}, file, {"sha256": "of others"})
    with pytest.raises(ValueError, match="does not match the checksum written with it"):
        vit_weights.load("dinov2")


def test_positions_are_interpolated_by_weights_that_sum_to_one_and_mirror():
    matrix = vit_weights.cubic(16, 37)
    np.testing.assert_allclose(matrix.sum(1), 1.0, atol=1e-12)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-12)
    np.testing.assert_array_equal(vit_weights.cubic(5, 5), np.eye(5))
    # Halfway between two of four points, by the kernel with a = -0.75: 0.59375 and -0.09375.
    np.testing.assert_allclose(vit_weights.cubic(2, 4)[0], [0.5, 0.59375, -0.09375, 0.0])


def test_images_are_resized_and_scaled_to_the_colors_of_the_training():
    gray = np.full((1, 32, 32, 3), 0.456 * 255, np.float32)
    found = vit.prepared(vit.DINOV2, jnp.asarray(gray))
    assert found.shape == (1, 224, 224, 3)
    np.testing.assert_allclose(
        found[0, 100, 100], (0.456 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], atol=1e-5
    )
