"""Crop and resize: exact where they can be, Pillow's own done by hand, and without aliases."""

import io

import numpy as np
import pytest
from PIL import Image

from lotto_jax.data import pixels


def random_image(height, width, channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_size_0_gives_the_stored_pixels(channels):
    image = random_image(6, 5, channels)
    np.testing.assert_array_equal(pixels.decode(encoded(image), channels, 0), image)
    np.testing.assert_array_equal(pixels.fit(image, 0), image)


def test_a_square_of_its_own_size_is_cut_from_the_center_exactly():
    image = random_image(218, 178, 3)
    np.testing.assert_array_equal(pixels.fit(image, 178), image[20:198])
    wide = random_image(5, 8, 1)
    np.testing.assert_array_equal(pixels.fit(wide, 5), wide[:, 1:6])


@pytest.mark.parametrize("size", [32, 64])
def test_a_celeba_image_is_pillows_bicubic_of_its_178_crop(size):
    stored = np.asarray(Image.fromarray(random_image(20, 16, 3)).resize((178, 218)))
    file = encoded(stored, "JPEG")
    with Image.open(io.BytesIO(file)) as image:
        expected = image.crop((0, 20, 178, 198)).resize((size, size), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(pixels.decode(file, 3, size), np.asarray(expected))


def test_constants_stay_and_gradients_keep_their_slope_and_center():
    np.testing.assert_array_equal(pixels.fit(np.full((50, 40, 3), 77, np.uint8), 16), 77)
    np.testing.assert_array_equal(pixels.fit(np.full((8, 8, 1), 200, np.uint8), 32), 200)
    ramp = np.broadcast_to(np.arange(0, 240, 4, dtype=np.uint8)[:, None, None], (60, 60, 1))
    column = pixels.fit(np.ascontiguousarray(ramp), 20)[2:-2, 5, 0].astype(int)
    np.testing.assert_allclose(column, 4 * (3 * np.arange(2, 18) + 1), atol=1)


def test_a_checkerboard_reduces_to_its_mean_and_not_to_an_alias():
    """Taking every eighth pixel would give all black or all white."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    assert np.ptp(board[::8, ::8]) == 0
    assert np.all(np.abs(pixels.fit(board, 8).astype(int)[1:-1, 1:-1] - 127.5) < 3)


def test_a_gray_file_of_a_color_dataset_gets_its_channels():
    gray = random_image(4, 4, 1)
    np.testing.assert_array_equal(pixels.decode(encoded(gray), 3, 0), np.repeat(gray, 3, axis=2))
