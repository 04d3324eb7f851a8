"""Examples as they lie on the devices: images as rows of 32-bit words, which the host makes of their bytes; floats as
they are.

XLA's CPU backend gathers an entry at a time, so that words are four times as fast as bytes. Making them inside a
program costs a TPU nine times the data, since each byte becomes a word there; taking a batch apart costs nothing.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from lotto_jax.objectives.state import Batch


@struct.dataclass
class Examples:
    """Examples with any leading axes, a pytree of two leaves.

    Attributes:
      rows: the bytes of the images, uint32 [..., words] where they divide into words, else uint8 [..., bytes]; or
        float32 [..., numbers] of data that are no images.
      label: int32 [...], or [..., attributes].
      image_shape: (height, width, channels).
    """

    rows: Any
    label: Any
    image_shape: tuple[int, int, int] = struct.field(pytree_node=False)


def pack(
    image: UInt8[np.ndarray, "*axes height width channels"] | Float[np.ndarray, "*axes height width channels"],
    label: Int[np.ndarray, "..."],
) -> Examples:
    """Examples on the host. Nothing is copied of images that are contiguous in memory or in a file."""
    size = math.prod(image.shape[-3:])
    rows = np.ascontiguousarray(image).reshape(*image.shape[:-3], size)
    words = rows.dtype == np.uint8 and size % 4 == 0
    return Examples(rows.view(np.uint32) if words else rows, label, image.shape[-3:])


def unpack(examples: Examples) -> Batch:
    """The images and labels again, inside a program: uint8 or float32 [..., height, width, channels]."""
    rows = examples.rows
    image: Array = rows if rows.dtype == jnp.float32 else lax.bitcast_convert_type(rows, jnp.uint8)
    return Batch(image.reshape(*rows.shape[:-1], *examples.image_shape), examples.label)
