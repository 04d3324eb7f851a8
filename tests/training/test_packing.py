"""Images as words: the same bytes again, whatever their number and place in memory."""

import jax
import numpy as np
import pytest

from lotto_jax.training import packing


@pytest.mark.parametrize(
    ("axes", "shape"), [((7,), (4, 3, 2)), ((2, 3, 5), (2, 2, 3)), ((4,), (3, 3, 1)), ((0,), (2, 2, 1))]
)
def test_images_come_back_byte_for_byte(axes, shape):
    image = np.random.default_rng(0).integers(0, 256, (*axes, *shape), np.uint8)
    label = np.arange(np.prod(axes), dtype=np.int32).reshape(axes)
    packed = packing.pack(image, label)
    size = int(np.prod(shape))
    assert packed.rows.shape == (*axes, size // 4 if size % 4 == 0 else size)
    assert packed.rows.dtype == (np.uint32 if size % 4 == 0 else np.uint8) and packed.rows.nbytes == image.nbytes
    batch = jax.jit(packing.unpack)(packed)
    np.testing.assert_array_equal(batch.image, image)
    np.testing.assert_array_equal(batch.label, label)


def test_images_in_a_file_are_mapped_and_those_in_odd_places_are_copied(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (6, 2, 2, 3), np.uint8)
    np.save(tmp_path / "image.npy", image)
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    assert np.shares_memory(packing.pack(mapped, np.zeros(6)).rows, mapped)
    odd = np.frombuffer(b"x" + image.tobytes(), np.uint8)[1:].reshape(image.shape)  # no word begins where it does
    for other in (odd, image[::-1], image.transpose(0, 2, 1, 3)):
        batch = jax.jit(packing.unpack)(packing.pack(other, np.zeros(6, np.int32)))
        np.testing.assert_array_equal(batch.image, other)
