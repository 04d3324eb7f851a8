"""The diffusion transformer (DiT; Peebles and Xie 2023) without classes: patches as tokens, adaLN-Zero blocks."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lotto_jax.models import time_embedding

Tokens = Float[Array, "batch tokens width"]
FREQUENCIES = 256  # features of the time
kernel_init = nn.initializers.xavier_uniform()
zeros = nn.initializers.zeros


def positions(side: int, width: int) -> Float[np.ndarray, "tokens width"]:
    """Fixed sines and cosines of the rows and columns of a grid of `side` x `side`; `width` is divisible by 4."""
    frequencies = 1 / 10_000 ** (np.arange(width // 4) / (width / 4))
    column, row = np.meshgrid(np.arange(side), np.arange(side))
    angles = [axis.reshape(-1, 1) * frequencies for axis in (column, row)]
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1)


def modulated(x: Tokens, shift: Float[Array, "batch width"], scale: Float[Array, "batch width"], dtype: Any) -> Tokens:
    """Layer norm without params of its own, then scale and shift by what the time says."""
    y = nn.LayerNorm(use_bias=False, use_scale=False, epsilon=1e-6, dtype=dtype)(x)
    return y * (1.0 + scale[:, None]) + shift[:, None]


class _Block(nn.Module):
    heads: int
    ratio: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Tokens, condition: Float[Array, "batch width"]) -> Tokens:
        width = x.shape[-1]

        def dense(features: int, name: str, **fields: Any) -> nn.Dense:
            return nn.Dense(features, dtype=self.dtype, name=name, **{"kernel_init": kernel_init, **fields})

        modulation = dense(6 * width, "modulation", kernel_init=zeros)(nn.swish(condition))
        shift_0, scale_0, gate_0, shift_1, scale_1, gate_1 = jnp.split(modulation, 6, axis=-1)
        y = modulated(x, shift_0, scale_0, self.dtype)
        query, key, value = (
            dense(width, name)(y).reshape(*y.shape[:2], -1, width // self.heads) for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * (width // self.heads) ** -0.5
        weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(value.dtype)
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(*y.shape[:2], -1)
        x = x + gate_0[:, None] * dense(width, "attention")(y)
        y = dense(self.ratio * width, "mlp_0")(modulated(x, shift_1, scale_1, self.dtype))
        return x + gate_1[:, None] * dense(width, "mlp_1")(nn.gelu(y))


class DiT(nn.Module):
    """Transformer blocks over patches, whose norms are scaled, shifted and gated by the time (adaLN-Zero).

    The defaults are a small one, 1.9 M params at 32x32x3. DiT-S/2 has width 384, depth 12, heads 6 and patch 2.

    Attributes:
      width: of a token, divisible by 4 and by `heads`.
      depth: blocks.
      heads: of each attention.
      patch: height and width of a patch, which divides the image's.
      ratio: hidden units of a block's perceptron, in multiples of `width`.
      image_size: height and width of the image.
      channels: of the image.
      dtype: of the computation; params are float32.
    """

    width: int = 128
    depth: int = 6
    heads: int = 4
    patch: int = 2
    ratio: int = 4
    image_size: int = 32
    channels: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], time: Float[Array, "batch"], train: bool
    ) -> Float[Array, "batch height width channels"]:
        """What `objectives.denoising` asks of x at times in [0, 1], float32; `train` changes nothing here."""
        self._check(x)
        batch, side = x.shape[0], self.image_size // self.patch
        normal = nn.initializers.normal(0.02)

        def dense(features: int, name: str, init: Any) -> nn.Dense:
            return nn.Dense(features, dtype=self.dtype, kernel_init=init, name=name)

        patches = x.reshape(batch, side, self.patch, side, self.patch, self.channels).transpose(0, 1, 3, 2, 4, 5)
        tokens = dense(self.width, "patches", kernel_init)(patches.reshape(batch, side**2, -1))
        tokens = tokens + jnp.asarray(positions(side, self.width), tokens.dtype)[None]
        condition = dense(self.width, "time_0", normal)(time_embedding.sinusoidal(time, FREQUENCIES))
        condition = dense(self.width, "time_1", normal)(nn.swish(condition))
        for i in range(self.depth):
            tokens = _Block(self.heads, self.ratio, self.dtype, name=f"block_{i}")(tokens, condition)
        shift, scale = jnp.split(dense(2 * self.width, "modulation", zeros)(nn.swish(condition)), 2, axis=-1)
        tokens = modulated(tokens, shift, scale, self.dtype)
        y = dense(self.patch**2 * self.channels, "output", zeros)(tokens)
        y = y.reshape(batch, side, side, self.patch, self.patch, self.channels).transpose(0, 1, 3, 2, 4, 5)
        return y.reshape(x.shape).astype(jnp.float32)

    def _check(self, x: Array) -> None:
        if self.width % 4 or self.width % self.heads:
            raise ValueError(
                f"width is {self.width} and heads {self.heads}; a DiT's width must be divisible by 4 and by its heads."
            )
        if self.image_size % self.patch:
            raise ValueError(
                f"image_size is {self.image_size}, which patches of {self.patch} do not divide; change model.patch."
            )
        if x.ndim != 4 or x.shape[1:] != (self.image_size, self.image_size, self.channels):
            wanted = [self.image_size, self.image_size, self.channels]
            raise ValueError(
                f"The network was made for images of [batch, {', '.join(map(str, wanted))}] and got {list(x.shape)}; "
                "set its image_size and channels to those of the data."
            )
