"""Residual GAN (Miyato et al. 2018, table 4), whose networks are also the ResNet-VAE's (Table 1)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from lotto_jax.models import blocks, convolutions, layers

kernel_init = nn.initializers.glorot_uniform()


class _UpBlock(nn.Module):
    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        def conv(x: Array, kernel: int, name: str, resample: convolutions.Resample | None = None) -> Array:
            layer = layers.Conv(
                self.features, kernel, dtype=self.dtype, kernel_init=kernel_init, resample=resample, name=name
            )
            return layer(x)

        y = conv(blocks.norm_relu(x, train, self.dtype, "norm_0"), 3, "conv_0", "double")
        y = conv(blocks.norm_relu(y, train, self.dtype, "norm_1"), 3, "conv_1")
        # A 1x1 convolution and upsampling commute; this order costs a quarter.
        return y + convolutions.double(conv(x, 1, "shortcut"))


class Generator(nn.Module):
    """Dense to 4x4, residual blocks that double the size, BN, ReLU, a 3x3 convolution, tanh (1.2 M params).

    Attributes:
      width: channels of every map.
      image_size: 32, 64 or another power of two; each doubling adds a block.
      channels: of the image.
      dtype: of the computation; params and batch statistics are float32.
    """

    width: int = 128
    image_size: int = 32
    channels: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def logits(self, z: Float[Array, "batch latent"], train: bool) -> Float[Array, "batch height width channels"]:
        """Images before the tanh, float32."""
        num_stages = blocks.stages(self.image_size)
        x = nn.Dense(16 * self.width, dtype=self.dtype, kernel_init=kernel_init, name="dense")(z)
        x = x.reshape(x.shape[0], 4, 4, -1)
        for i in range(num_stages):
            x = _UpBlock(self.width, self.dtype, name=f"block_{i}")(x, train)
        x = blocks.norm_relu(x, train, self.dtype, "norm")
        x = layers.Conv(self.channels, (3, 3), dtype=self.dtype, kernel_init=kernel_init, name="image")(x)
        return x.astype(jnp.float32)

    def __call__(self, z: Float[Array, "batch latent"], train: bool) -> Float[Array, "batch height width channels"]:
        """Images in [-1, 1], float32; `train` normalizes by the statistics of the batch."""
        return jnp.tanh(self.logits(z, train))


class _Block(nn.Module):
    """A residual block, spectrally normalized; `first` leaves out the leading ReLU."""

    features: int
    down: bool
    first: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        def conv(x: Array, kernel: int, name: str, resample: convolutions.Resample | None = None) -> Array:
            layer = layers.Conv(
                self.features, kernel, dtype=self.dtype, kernel_init=kernel_init, resample=resample, name=name
            )
            return layers.spectral_norm(layer)(x, update_stats=train)

        y = conv(x if self.first else nn.relu(x), 3, "conv_0")
        y = conv(nn.relu(y), 3, "conv_1", "halve" if self.down else None)
        if not self.down:
            return x + y
        # A 1x1 convolution and average pooling commute; this order costs a quarter.
        return y + conv(convolutions.halve(x), 1, "shortcut")


class Body(nn.Module):
    """The discriminator without its head: halving blocks down to 8x8, then two more.

    Attributes:
      width: channels of every map.
      image_size: 32, 64 or another power of two; each doubling adds a block.
      dtype: of the computation; params and power-iteration vectors are float32.
    """

    width: int = 128
    image_size: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch 8 8 width"]:
        """Features after the last ReLU; `train` stores the power iteration's progress."""
        blocks.check_image(image, self.image_size)
        num_down = blocks.stages(self.image_size, smallest=16) - 1
        x = image
        for i in range(num_down + 2):
            x = _Block(self.width, i < num_down, i == 0, self.dtype, name=f"block_{i}")(x, train)
        return nn.relu(x)


class Discriminator(nn.Module):
    """Spectrally normalized residual blocks, a sum over positions, and a dense logit (1.05 M params).

    `Body` explains the fields.
    """

    width: int = 128
    image_size: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "batch height width channels"], train: bool) -> Float[Array, "batch"]:
        """Logits, float32: high for real images. `train` stores the power iteration's progress."""
        x = jnp.sum(Body(self.width, self.image_size, self.dtype, name="body")(image, train), (1, 2))
        dense = nn.Dense(1, dtype=self.dtype, kernel_init=kernel_init, name="dense")
        return layers.spectral_norm(dense)(x, update_stats=train)[:, 0].astype(jnp.float32)
