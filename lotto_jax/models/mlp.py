"""A small multilayer perceptron as denoising network, for points."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from lotto_jax.models import time_embedding


class MLP(nn.Module):
    """Dense layers over the numbers of an example and the time, which is added to the first hidden layer.

    Attributes:
      width: of the hidden layers.
      depth: number of hidden layers.
      dtype: of the computation; params are float32.
    """

    width: int = 128
    depth: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], time: Float[Array, "batch"], train: bool
    ) -> Float[Array, "batch height width channels"]:
        """What `objectives.denoising` asks of x at times in [0, 1], float32; `train` changes nothing here."""
        dense = lambda features, name: nn.Dense(features, dtype=self.dtype, name=name)  # noqa: E731
        y = x.reshape(x.shape[0], -1)
        size = y.shape[1]
        embedded = time_embedding.sinusoidal(time, 2 * (self.width // 2))
        y = dense(self.width, "dense_0")(y) + dense(self.width, "time")(embedded)
        for i in range(1, self.depth):
            y = dense(self.width, f"dense_{i}")(nn.swish(y))
        y = dense(size, "output")(nn.swish(y))
        return y.reshape(x.shape).astype(jnp.float32)
