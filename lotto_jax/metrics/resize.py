"""The three ways FID implementations bring images to Inception's 299x299, and their scaling to [-1, 1].

Published numbers differ by the resize more than by anything else: TTUR, ADM and torch-fidelity use
TensorFlow 1's bilinear (`tf1`), pytorch-fid uses PyTorch's (`pytorch`), clean-fid uses an antialiased
bicubic (`clean`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SIZE = 299

Images = Float[Array, "batch height width 3"]
Resized = Float[Array, "batch 299 299 3"]


def tf1_bilinear(images: Images, size: int = SIZE) -> Float[Array, "batch size size 3"]:
    """`tf.image.resize_bilinear` of TensorFlow 1: src = dst * in / out, no half pixel, no antialias.

    Args:
      images: float32, in any scale, which is kept.
      size: height and width of the result.
    """

    def along(x: Array, axis: int) -> Array:
        length = x.shape[axis]
        source = np.arange(size, dtype=np.float32) * np.float32(length / size)
        low = np.minimum(source.astype(np.int32), length - 1)
        shape = [1] * x.ndim
        shape[axis] = size
        weight = (source - low).reshape(shape)
        first = jnp.take(x, low, axis=axis)
        second = jnp.take(x, np.minimum(low + 1, length - 1), axis=axis)
        return first + (second - first) * weight

    return along(along(images, 2), 1)


def tf1(images: Images) -> Resized:
    """TensorFlow 1 bilinear, then (x - 128) / 128, as in the 2015 graph (TTUR, ADM, torch-fidelity).

    Args:
      images: float32 in [0, 255].
    """
    return (tf1_bilinear(images) - 128.0) / 128.0


def pytorch(images: Images) -> Resized:
    """Half-pixel bilinear without antialias on [0, 1], then 2x - 1, as in pytorch-fid.

    Args:
      images: float32 in [0, 255].
    """
    shape = (images.shape[0], SIZE, SIZE, images.shape[3])
    x = jax.image.resize(images / 255.0, shape, "linear", antialias=False, precision=jax.lax.Precision.HIGHEST)
    return 2.0 * x - 1.0


def clean(images: Images) -> Resized:
    """Antialiased float bicubic, clipped but not rounded, then (x - 128) / 128, as in clean-fid.

    Parmar et al., "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", CVPR 2022.

    Args:
      images: float32 in [0, 255].
    """
    shape = (images.shape[0], SIZE, SIZE, images.shape[3])
    x = jax.image.resize(images, shape, "cubic", antialias=True, precision=jax.lax.Precision.HIGHEST)
    return (jnp.clip(x, 0.0, 255.0) - 128.0) / 128.0


MODES: dict[str, Callable[[Images], Resized]] = {"tf1": tf1, "pytorch": pytorch, "clean": clean}
