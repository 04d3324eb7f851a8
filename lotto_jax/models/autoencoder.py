"""Autoencoders (Table 1, first rows)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class _LinearEncoder(nn.Module):
    latent: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch features"]) -> Float[Array, "batch latent"]:
        return nn.relu(nn.Dense(self.latent, name="dense")(x))


class _LinearDecoder(nn.Module):
    features: int

    @nn.compact
    def __call__(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch features"]:
        return nn.Dense(self.features, name="dense")(z)


class LinearAutoencoder(nn.Module):
    """The paper's linear autoencoder: 784-128-784 with a ReLU between (0.2 M params at 28x28).

    Attributes:
      latent: width of the bottleneck.
    """

    latent: int = 128

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch height width channels"]:
        """Reconstructions in the scale of `image` ([0, 1]), unclipped; `train` changes nothing in this network."""
        x = jnp.reshape(image, (image.shape[0], -1))
        z = _LinearEncoder(self.latent, name="encoder")(x)
        return jnp.reshape(_LinearDecoder(x.shape[1], name="decoder")(z), image.shape)
