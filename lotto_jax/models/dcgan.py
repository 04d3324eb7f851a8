"""DCGAN (Radford et al. 2015), also WGAN; the generator is the VAE's decoder (Table 1)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from lotto_jax.models import layers

kernel_init = nn.initializers.normal(0.02)


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
        num_stages = stages(self.image_size)

        def features(size: int) -> int:
            return max(1, 32 * self.width // size)

        def norm_relu(x: Array, name: str) -> Array:
            norm = nn.BatchNorm(not train, momentum=0.9, dtype=self.dtype, scale_init=scale_init, name=f"norm_{name}")
            return nn.relu(norm(x))

        x = nn.Dense(16 * features(4), dtype=self.dtype, kernel_init=kernel_init, name="dense")(z)
        x = norm_relu(x.reshape(x.shape[0], 4, 4, -1), "4")
        for size in [4 * 2**i for i in range(1, num_stages + 1)]:
            x = layers.ConvTranspose(
                features(size),
                (4, 4),
                strides=2,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=kernel_init,
                name=f"conv_{size}",
            )(x)
            x = norm_relu(x, str(size))
        x = layers.Conv(self.channels, (3, 3), dtype=self.dtype, kernel_init=kernel_init, name="image")(x)
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
        check_image(image, self.image_size)
        x = image
        for i in range(stages(self.image_size) + 1):
            size = self.image_size // 2 ** (i + 1)
            norm = self.batch_norm and i > 0
            x = layers.Conv(
                max(1, 16 * self.width // size),
                (4, 4),
                strides=2,
                use_bias=not norm,
                dtype=self.dtype,
                kernel_init=kernel_init,
                name=f"conv_{size}",
            )(x)
            if norm:
                x = nn.BatchNorm(not train, momentum=0.9, dtype=self.dtype, scale_init=scale_init, name=f"norm_{size}")(
                    x
                )
            x = nn.leaky_relu(x, 0.2)
        x = x.reshape(x.shape[0], -1)
        x = nn.Dense(1, dtype=self.dtype, kernel_init=kernel_init, name="dense")(x)
        return x[:, 0].astype(jnp.float32)
