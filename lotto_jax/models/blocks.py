"""What the networks have in common: sizes of maps, batch norm, and the initialization of DCGAN."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

kernel_init = nn.initializers.normal(0.02)  # of DCGAN (Radford et al. 2015)


def scale_init(*args: Any) -> Array:
    """The DCGAN initialization of batch-norm scales: normal around 1 with standard deviation 0.02."""
    return 1.0 + nn.initializers.normal(0.02)(*args)


def stages(image_size: int, smallest: int = 8) -> int:
    """How often a 4x4 map is doubled to reach `image_size`.

    Raises:
      ValueError: if `image_size` is not a power of two from `smallest` on.
    """
    if image_size < smallest or image_size & (image_size - 1):
        raise ValueError(
            f"image_size is {image_size}; this network takes square images whose size is a power of two, at "
            f"least {smallest} (32 and 64 are usual): resize or pad the images."
        )
    return image_size.bit_length() - 3


def check_image(image: Array, image_size: int) -> None:
    """Raise ValueError unless `image` is `[batch, image_size, image_size, channels]`."""
    if image.ndim != 4 or image.shape[1:3] != (image_size, image_size):
        raise ValueError(
            f"The network was made for images of [batch, {image_size}, {image_size}, channels] and got "
            f"{list(image.shape)}; set its image_size to the size of the data."
        )


def features(size: int, width: int, at: int) -> int:
    """Channels of a map of `size` x `size`: `width` at size `at`, twice as many at half the size; at least one."""
    return max(1, at * width // size)


def batch_norm(train: bool, dtype: Any, name: str, scale_init: Any = nn.initializers.ones) -> nn.BatchNorm:
    """The batch norm of all networks; `train` normalizes by the batch and moves the stored statistics by a tenth."""
    return nn.BatchNorm(not train, momentum=0.9, dtype=dtype, scale_init=scale_init, name=name)


def norm_relu(
    x: Float[Array, "*map features"], train: bool, dtype: Any, name: str, scale_init: Any = nn.initializers.ones
) -> Float[Array, "*map features"]:
    """`batch_norm`, then ReLU, as a part of the compact module that calls it."""
    return nn.relu(batch_norm(train, dtype, name, scale_init)(x))
