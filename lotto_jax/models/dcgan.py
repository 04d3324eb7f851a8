"""DCGAN (Radford et al. 2015), also WGAN; the generator is the VAE's decoder (Table 1)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from lotto_jax.models import blocks, layers


class Generator(nn.Module):
    """Dense to 4x4, 4x4/2 transposed convolutions with BN and ReLU, 3x3 convolution, tanh (3.8 M params).

    A map of size r has `32 * width / r` channels, so the params hardly depend on the image size.

    Attributes:
      width: channels of the 32x32 map.
      image_size: 32, 64 or another power of two; each doubling adds a stage.
      channels: of the image.
      dtype: of the computation; params and batch statistics are float32.
    """

    width: int = 64
    image_size: int = 32
    channels: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def logits(self, z: Float[Array, "batch latent"], train: bool) -> Float[Array, "batch height width channels"]:
        """Images before the tanh, float32."""
        num_stages = blocks.stages(self.image_size)
        features = blocks.features(4, self.width, at=32)
        x = nn.Dense(16 * features, dtype=self.dtype, kernel_init=blocks.kernel_init, name="dense")(z)
        x = blocks.norm_relu(x.reshape(x.shape[0], 4, 4, -1), train, self.dtype, "norm_4", blocks.scale_init)
        for size in [4 * 2**i for i in range(1, num_stages + 1)]:
            x = layers.ConvTranspose(
                blocks.features(size, self.width, at=32),
                (4, 4),
                strides=2,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=blocks.kernel_init,
                name=f"conv_{size}",
            )(x)
            x = blocks.norm_relu(x, train, self.dtype, f"norm_{size}", blocks.scale_init)
        x = layers.Conv(self.channels, (3, 3), dtype=self.dtype, kernel_init=blocks.kernel_init, name="image")(x)
        return x.astype(jnp.float32)

    def __call__(self, z: Float[Array, "batch latent"], train: bool) -> Float[Array, "batch height width channels"]:
        """Images in [-1, 1], float32; `train` normalizes by the statistics of the batch."""
        return jnp.tanh(self.logits(z, train))


class Discriminator(nn.Module):
    """4x4/2 convolutions to 2x2, BN on all but the first, leaky ReLU, and a dense logit (2.8 M params).

    A convolution that makes a map of size r has `16 * width / r` features.

    Attributes:
      width: features of the 16x16 map.
      image_size: 32, 64 or another power of two; each doubling adds a stage.
      batch_norm: False for the Wasserstein loss with gradient penalty, which needs each sample's own
        gradient.
      dtype: of the computation; params and batch statistics are float32.
    """

    width: int = 64
    image_size: int = 32
    batch_norm: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "batch height width channels"], train: bool) -> Float[Array, "batch"]:
        """Logits, float32: high for real images."""
        blocks.check_image(image, self.image_size)
        x = image
        for i in range(blocks.stages(self.image_size) + 1):
            size = self.image_size // 2 ** (i + 1)
            norm = self.batch_norm and i > 0
            x = layers.Conv(
                blocks.features(size, self.width, at=16),
                (4, 4),
                strides=2,
                use_bias=not norm,
                dtype=self.dtype,
                kernel_init=blocks.kernel_init,
                name=f"conv_{size}",
            )(x)
            if norm:
                x = blocks.batch_norm(train, self.dtype, f"norm_{size}", blocks.scale_init)(x)
            x = nn.leaky_relu(x, 0.2)
        x = x.reshape(x.shape[0], -1)
        x = nn.Dense(1, dtype=self.dtype, kernel_init=blocks.kernel_init, name="dense")(x)
        return x[:, 0].astype(jnp.float32)
