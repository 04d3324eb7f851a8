"""Variational autoencoders (Kingma and Welling 2014; Table 1), whose decoders are the GANs' generators."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lotto_jax.models import autoencoder, convolutions, dcgan, resnet_gan


class ConvEncoder(nn.Module):
    """The convolutional autoencoder's trunk with two dense heads (1.7 M params at latent 128).

    Attributes:
      latent: size of the latent vector.
      width: features of the first convolution at 32x32.
      image_size: 32, 64 or another power of two; each doubling adds a stage.
      dtype: of the computation; params and batch statistics are float32.
    """

    latent: int = 128
    width: int = 64
    image_size: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channels"], train: bool
    ) -> tuple[Float[Array, "batch latent"], Float[Array, "batch latent"]]:
        """Mean and log variance of the posterior, float32."""
        trunk = autoencoder.ConvTrunk(self.width, self.image_size, self.dtype, name="trunk")
        return _heads(trunk(image, train), self.latent, self.dtype)


class ResNetEncoder(nn.Module):
    """The residual discriminator's body, pooled to 4x4, with two dense heads (1.6 M params at latent 128).

    Attributes:
      latent: size of the latent vector.
      width: channels of every map.
      image_size: 32, 64 or another power of two; each doubling adds a block.
      dtype: of the computation; params are float32.
    """

    latent: int = 128
    width: int = 128
    image_size: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channels"], train: bool
    ) -> tuple[Float[Array, "batch latent"], Float[Array, "batch latent"]]:
        """Mean and log variance of the posterior, float32."""
        body = resnet_gan.Body(self.width, self.image_size, self.dtype, name="body")
        return _heads(convolutions.halve(body(image, train)), self.latent, self.dtype)


def _heads(x: Array, latent: int, dtype: Any) -> tuple[Array, Array]:
    x = x.reshape(x.shape[0], -1)
    mean = nn.Dense(latent, dtype=dtype, name="mean")(x)
    log_variance = nn.Dense(latent, dtype=dtype, name="log_variance")(x)
    return mean.astype(jnp.float32), log_variance.astype(jnp.float32)


class VAE(nn.Module):
    """An encoder and a decoder, the components of params; make one with `conv_vae` or `resnet_vae`.

    Attributes:
      encoder: `(image, train) -> (mean, log_variance)`, with a field `latent`.
      decoder: a `Generator` of `dcgan` or `resnet_gan`.
    """

    encoder: nn.Module
    decoder: nn.Module

    def __call__(
        self, image: Float[Array, "batch height width channels"], key: Key[Array, ""], train: bool
    ) -> tuple[
        Float[Array, "batch height width channels"],
        Float[Array, "batch latent"],
        Float[Array, "batch latent"],
    ]:
        """Logits of the reconstruction (their tanh is the image), and the posterior's mean and log variance.

        Args:
          image: in [-1, 1].
          key: of the one sample from the posterior.
          train: normalizes by the statistics of the batch.
        """
        mean, log_variance = self.encoder(image, train)
        noise = jax.random.normal(key, mean.shape)
        return self.decode(mean + jnp.exp(0.5 * log_variance) * noise, train), mean, log_variance

    def encode(
        self, image: Float[Array, "batch height width channels"], train: bool
    ) -> tuple[Float[Array, "batch latent"], Float[Array, "batch latent"]]:
        """Mean and log variance of the posterior of images in [-1, 1]."""
        return self.encoder(image, train)

    def decode(self, z: Float[Array, "batch latent"], train: bool) -> Float[Array, "batch height width channels"]:
        """Logits of the images of `z`."""
        return self.decoder.logits(z, train)


def conv_vae(
    latent: int = 128, width: int = 64, image_size: int = 32, channels: int = 3, dtype: Any = jnp.float32
) -> VAE:
    """The paper's VAE and beta-VAE (5.5 M params); the decoder is DCGAN's generator."""
    return VAE(ConvEncoder(latent, width, image_size, dtype), dcgan.Generator(width, image_size, channels, dtype))


def resnet_vae(
    latent: int = 128, width: int = 128, image_size: int = 32, channels: int = 3, dtype: Any = jnp.float32
) -> VAE:
    """The paper's ResNet-VAE (2.8 M params); the decoder is the residual GAN's generator."""
    return VAE(
        ResNetEncoder(latent, width, image_size, dtype),
        resnet_gan.Generator(width, image_size, channels, dtype),
    )
