"""Autoencoders (Table 1, first rows)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lotto_jax.models import blocks, layers

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": nn.relu, "none": lambda x: x}
OUTPUTS: dict[str, Callable[[Array], Array]] = {"none": lambda x: x, "sigmoid": nn.sigmoid}
INITIALIZATIONS = ("pytorch", "flax")


def _dense(inputs: int, features: int, dtype: Any, initialization: str) -> nn.Dense:
    """A dense layer that starts as PyTorch's does, kernel and bias uniform in +-1/sqrt(inputs): the paper's framework.

    Flax's default starts it with sqrt(3) times larger weights (normal, and cut off) and no bias.
    """
    if initialization == "flax":
        return nn.Dense(features, dtype=dtype, name="dense")

    def bias(key: Array, shape: tuple[int, ...], param_dtype: Any) -> Array:
        return jax.random.uniform(key, shape, param_dtype, -(inputs**-0.5), inputs**-0.5)

    kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    return nn.Dense(features, dtype=dtype, kernel_init=kernel, bias_init=bias, name="dense")


class _LinearEncoder(nn.Module):
    latent: int
    dtype: Any
    activation: str
    initialization: str

    @nn.compact
    def __call__(self, x: Float[Array, "batch features"]) -> Float[Array, "batch latent"]:
        return ACTIVATIONS[self.activation](_dense(x.shape[1], self.latent, self.dtype, self.initialization)(x))


class _LinearDecoder(nn.Module):
    features: int
    dtype: Any
    output: str
    initialization: str

    @nn.compact
    def __call__(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch features"]:
        return OUTPUTS[self.output](_dense(z.shape[1], self.features, self.dtype, self.initialization)(z))


class LinearAutoencoder(nn.Module):
    """The paper's linear autoencoder: 784-128-784 with a ReLU between (0.2 M params at 28x28).

    The paper does not state activations and initialization; docs/ablation.md compares them.

    Attributes:
      latent: width of the bottleneck.
      activation: of the bottleneck: "relu" or "none".
      output: "none", or "sigmoid" (not for the loss "bce", which takes logits).
      initialization: of both layers: "pytorch" or "flax".
      dtype: of the computation; params are float32.
    """

    latent: int = 128
    activation: str = "relu"
    output: str = "none"
    initialization: str = "pytorch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch height width channels"]:
        """Reconstructions in the scale of `image` ([0, 1]), unclipped, float32; `train` changes nothing here."""
        choices = {"activation": tuple(ACTIVATIONS), "output": tuple(OUTPUTS), "initialization": INITIALIZATIONS}
        for field, taken in choices.items():
            if getattr(self, field) not in taken:
                raise ValueError(f"config.model.{field} is {getattr(self, field)!r}; it takes {' or '.join(taken)}.")
        x = jnp.reshape(image, (image.shape[0], -1))
        z = _LinearEncoder(self.latent, self.dtype, self.activation, self.initialization, name="encoder")(x)
        output = _LinearDecoder(x.shape[1], self.dtype, self.output, self.initialization, name="decoder")(z)
        return jnp.reshape(output, image.shape).astype(jnp.float32)


class ConvTrunk(nn.Module):
    """4x4/2 convolutions with BN and ReLU down to a 4x4 map; also the VAE's encoder.

    A convolution that makes a map of size r has `16 * width / r` features.

    Attributes:
      width: features of the 16x16 map.
      image_size: 32, 64 or another power of two; each doubling adds a stage.
      dtype: of the computation; params and batch statistics are float32.
    """

    width: int
    image_size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch 4 4 features"]:
        """The last map."""
        blocks.check_image(image, self.image_size)
        x = image
        for i in range(blocks.stages(self.image_size)):
            size = self.image_size // 2 ** (i + 1)
            features = blocks.features(size, self.width, at=16)
            conv = layers.Conv(features, (4, 4), strides=2, use_bias=False, dtype=self.dtype, name=f"conv_{size}")
            x = blocks.norm_relu(conv(x), train, self.dtype, f"norm_{size}")
        return x


class _ConvEncoder(nn.Module):
    latent: int
    width: int
    image_size: int
    dtype: Any

    @nn.compact
    def __call__(self, image: Array, train: bool) -> Float[Array, "batch latent"]:
        x = ConvTrunk(self.width, self.image_size, self.dtype, name="trunk")(image, train)
        return nn.Dense(self.latent, dtype=self.dtype, name="dense")(x.reshape(x.shape[0], -1))


class _ConvDecoder(nn.Module):
    width: int
    image_size: int
    channels: int
    dtype: Any

    @nn.compact
    def __call__(self, z: Float[Array, "batch latent"], train: bool) -> Array:
        x = nn.Dense(16 * blocks.features(4, self.width, at=16), dtype=self.dtype, name="dense")(z)
        x = blocks.norm_relu(x.reshape(x.shape[0], 4, 4, -1), train, self.dtype, "norm_4")
        for i in range(1, blocks.stages(self.image_size)):
            size = 4 * 2**i
            features = blocks.features(size, self.width, at=16)
            conv = layers.ConvTranspose(
                features, (4, 4), strides=2, use_bias=False, dtype=self.dtype, name=f"conv_{size}"
            )
            x = blocks.norm_relu(conv(x), train, self.dtype, f"norm_{size}")
        return layers.ConvTranspose(self.channels, (4, 4), strides=2, dtype=self.dtype, name="image")(x)


class ConvAutoencoder(nn.Module):
    """The paper's convolutional autoencoder: `ConvTrunk`, dense, and the same mirrored (3.0 M params).

    Attributes:
      latent: width of the bottleneck.
      width: features of the first convolution at 32x32.
      image_size: 32, 64 or another power of two; each doubling adds a stage to both components.
      dtype: of the computation; params and batch statistics are float32.
    """

    latent: int = 200
    width: int = 64
    image_size: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch height width channels"]:
        """Reconstructions in the scale of `image` ([0, 1]), unclipped, or their logits, as the loss has it;
        float32.

        `train` normalizes by the statistics of the batch.
        """
        encoder = _ConvEncoder(self.latent, self.width, self.image_size, self.dtype, name="encoder")
        decoder = _ConvDecoder(self.width, self.image_size, image.shape[-1], self.dtype, name="decoder")
        return decoder(encoder(image, train), train).astype(jnp.float32)
