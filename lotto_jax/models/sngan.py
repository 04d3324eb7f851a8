"""Discriminator of SNGAN (Miyato et al. 2018, table 3); its generator is `dcgan.Generator`."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from lotto_jax.models import blocks, layers


class Discriminator(nn.Module):
    """Spectrally normalized 3x3/1 and 4x4/2 convolutions in turn, leaky ReLU 0.1, dense (2.9 M params).

    A convolution on a map of size r has `32 * width / r` features, from `width` at 32x32 to 8 `width` at 4x4.

    Attributes:
      width: features of the 32x32 map.
      image_size: 32, 64 or another power of two; each doubling adds a stage.
      dtype: of the computation; params and power-iteration vectors are float32.
    """

    width: int = 64
    image_size: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "batch height width channels"], train: bool) -> Float[Array, "batch"]:
        """Logits, float32: high for real images. `train` stores the power iteration's progress."""
        blocks.check_image(image, self.image_size)

        def conv(x: Array, features: int, kernel: int, strides: int, name: str) -> Array:
            layer = layers.Conv(
                features,
                kernel,
                strides=strides,
                dtype=self.dtype,
                kernel_init=blocks.kernel_init,
                name=name,
            )
            return nn.leaky_relu(layers.spectral_norm(layer)(x, update_stats=train), 0.1)

        x = image
        for size in [self.image_size // 2**i for i in range(blocks.stages(self.image_size))]:
            features = blocks.features(size, self.width, at=32)
            x = conv(x, features, 3, 1, f"conv_{size}")
            x = conv(x, features, 4, 2, f"down_{size}")
        x = conv(x, 8 * self.width, 3, 1, "conv_4").reshape(x.shape[0], -1)
        dense = nn.Dense(1, dtype=self.dtype, kernel_init=blocks.kernel_init, name="dense")
        return layers.spectral_norm(dense)(x, update_stats=train)[:, 0].astype(jnp.float32)
