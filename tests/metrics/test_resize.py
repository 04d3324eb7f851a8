import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lotto_jax.metrics import resize


def tf1_oracle(image: np.ndarray, size: int) -> np.ndarray:
    """TensorFlow 1's resize_bilinear pixel by pixel, in float64."""
    height, width, channels = image.shape
    out = np.zeros((size, size, channels))
    for i in range(size):
        for j in range(size):
            y, x = i * height / size, j * width / size
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = y - top, x - left
            upper = image[top, left] * (1 - dx) + image[top, right] * dx
            lower = image[bottom, left] * (1 - dx) + image[bottom, right] * dx
            out[i, j] = upper * (1 - dy) + lower * dy
    return out


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 37, 53, 3)).astype(np.float32)


@pytest.mark.parametrize("size", [20, 37, 75])
def test_tf1_has_no_half_pixel_and_no_antialias(noise, size):
    found = resize.tf1_bilinear(noise, size)
    for image, expected in zip(found, noise, strict=True):
        # Coordinates up to 53 in float32 are off by 4e-6, and a pixel's neighbor by up to 255.
        np.testing.assert_allclose(image, tf1_oracle(expected, size), atol=2e-3)


def test_tf1_keeps_the_last_row_and_column(noise):
    """Beyond the last pixel its value goes on; scale_and_translate would fade to zero there."""
    found = np.asarray(resize.tf1_bilinear(noise, 299))
    np.testing.assert_allclose(found[:, -1, -1], noise[:, -1, -1], atol=1e-3)
    assert np.array_equal(found[:, 0, 0], noise[:, 0, 0])


def test_tf1_scales_by_128():
    flat = jnp.asarray([0.0, 128.0, 255.0]).reshape(3, 1, 1, 1)
    found = resize.tf1(jnp.broadcast_to(flat, (3, 4, 4, 3)))
    assert found.shape == (3, 299, 299, 3)
    np.testing.assert_array_equal(found[:, 5, 5, 0], np.float32([-1.0, 0.0, 0.9921875]))


def test_pytorch_scales_from_minus_one_to_one():
    flat = jnp.asarray([0.0, 127.5, 255.0]).reshape(3, 1, 1, 1)
    found = resize.pytorch(jnp.broadcast_to(flat, (3, 4, 4, 3)))
    np.testing.assert_allclose(found[:, 5, 5, 0], [-1.0, 0.0, 1.0], atol=1e-6)


def test_pytorch_does_not_antialias():
    """Shrinking a checkerboard leaves strong stripes, which an antialiasing filter removes."""
    board = np.indices((512, 512)).sum(axis=0) % 2 * 255.0
    images = np.repeat(board[None, :, :, None], 3, axis=3).astype(np.float32)
    assert np.std(resize.pytorch(images)) > 0.3
    assert np.std(resize.clean(images)) < 0.05


@pytest.mark.parametrize("shape", [(32, 32), (512, 400)])
def test_clean_is_float_bicubic_of_pillow(shape):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3)).astype(np.float32)
    planes = [Image.fromarray(image[:, :, c]) for c in range(3)]
    assert planes[0].mode == "F"
    bicubic = [np.asarray(p.resize((299, 299), Image.Resampling.BICUBIC)) for p in planes]
    clipped = np.clip(np.stack(bicubic, axis=-1), 0, 255)
    assert np.abs(np.stack(bicubic, axis=-1) - clipped).max() > 1, "the image does not overshoot"
    found = np.asarray(resize.clean(image[None]))[0] * 128 + 128
    # Neither rounds: nearly no value is whole.
    assert np.mean(found == np.round(found)) < 0.2
    # Coordinates up to 512 are off by 3e-5 in float32, and neighbors by up to 255.
    np.testing.assert_allclose(found, clipped, atol=8e-3)


@pytest.mark.parametrize("mode", resize.MODES)
def test_modes_do_not_mix_images(mode, noise):
    together = jax.jit(resize.MODES[mode])(noise)
    alone = jax.jit(resize.MODES[mode])(noise[1:])
    np.testing.assert_allclose(together[1:], alone, atol=1e-5)
