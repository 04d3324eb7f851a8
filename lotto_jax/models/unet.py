"""The UNet of denoising diffusion (Ho et al. 2020, appendix B); its defaults are their CIFAR-10 model."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lotto_jax.models import layers, time_embedding

Map = Float[Array, "batch height width channels"]
kernel_init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
last_init = nn.initializers.variance_scaling(1e-10, "fan_avg", "uniform")  # of layers that start by adding nothing


def _norm(x: Map, channels: int, groups: int, dtype: Any, name: str) -> Map:
    """Group norm whose groups have the size that they have at `channels` channels, whatever is left of them.

    So a network that has lost whole norm groups still normalizes the others as before.
    """
    size = channels // math.gcd(groups, channels)
    return nn.GroupNorm(num_groups=None, group_size=size, epsilon=1e-6, dtype=dtype, name=name)(x)


class _ResBlock(nn.Module):
    """From maps of `inputs` channels to maps of `features`; a compacted network may have fewer of both."""

    inputs: int
    features: int
    dropout: float
    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Map, embedded: Float[Array, "batch features"], train: bool) -> Map:
        def conv(y: Map, name: str, init: Any) -> Map:
            return layers.Conv(self.features, 3, dtype=self.dtype, kernel_init=init, name=name)(y)

        y = nn.swish(_norm(x, self.inputs, self.groups, self.dtype, "norm_0"))
        y = conv(y, "conv_0", kernel_init)
        shift = nn.Dense(self.features, dtype=self.dtype, kernel_init=kernel_init, name="time")(nn.swish(embedded))
        y = nn.swish(_norm(y + shift[:, None, None], self.features, self.groups, self.dtype, "norm_1"))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        y = conv(y, "conv_1", last_init)
        if self.inputs != self.features:
            x = nn.Dense(self.features, dtype=self.dtype, kernel_init=kernel_init, name="shortcut")(x)
        return x + y


class _Attention(nn.Module):
    """Self-attention of one head over the places of a map of `features` channels."""

    features: int
    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Map) -> Map:
        def dense(y: Array, name: str, init: Any = kernel_init) -> Array:
            return nn.Dense(self.features, dtype=self.dtype, kernel_init=init, name=name)(y)

        y = _norm(x, self.features, self.groups, self.dtype, "norm").reshape(x.shape[0], -1, x.shape[-1])
        query, key, value = (dense(y, name) for name in ("query", "key", "value"))
        scores = jnp.einsum("bqc,bkc->bqk", query, key) * self.features**-0.5
        weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(value.dtype)
        y = dense(jnp.einsum("bqk,bkc->bqc", weights, value), "output", last_init)
        return x + y.reshape(x.shape)


class UNet(nn.Module):
    """Residual blocks with group norm and the time's embedding, on maps that halve and double again (35.7 M params).

    Downsampling is a 3x3/2 convolution, upsampling nearest neighbour and a 3x3 convolution; the way up sees
    every map of the way down, concatenated to its own.

    Attributes:
      width: channels of the largest map.
      multipliers: channels of each size of map, from the largest, in multiples of `width`.
      blocks: residual blocks of each size on the way down; one more on the way up.
      attention: sizes of maps with self-attention after every block; the smallest map has it between its blocks anyway.
      dropout: rate within residual blocks; 0.1 in the model of CIFAR-10.
      groups: norm groups of a layer, or as many as divide it.
      image_size: divisible by 2 for every multiplier but the last.
      channels: of the image.
      dtype: of the computation; params are float32.
    """

    width: int = 128
    multipliers: Sequence[int] = (1, 2, 2, 2)
    blocks: int = 2
    attention: Sequence[int] = (16,)
    dropout: float = 0.0
    groups: int = 32
    image_size: int = 32
    channels: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Map, time: Float[Array, "batch"], train: bool) -> Map:
        """What `objectives.denoising` asks of x at times in [0, 1], float32; `train` drops out."""
        self._check(x)
        sizes, attended = [self.width * m for m in self.multipliers], {int(size) for size in self.attention}

        def res_block(y: Map, inputs: int, features: int, name: str) -> Map:
            module = _ResBlock(inputs, features, self.dropout, self.groups, self.dtype, name=name)
            return module(y, embedded, train)

        def attention(y: Map, features: int, name: str) -> Map:
            return _Attention(features, self.groups, self.dtype, name=name)(y)

        def block(y: Map, inputs: int, features: int, name: str) -> Map:
            y = res_block(y, inputs, features, name)
            return attention(y, features, f"{name}_attention") if y.shape[1] in attended else y

        def conv(y: Map, features: int, name: str, init: Any = kernel_init, **fields: Any) -> Map:
            return layers.Conv(features, 3, dtype=self.dtype, kernel_init=init, name=name, **fields)(y)

        def dense(y: Array, name: str) -> Array:
            return nn.Dense(4 * self.width, dtype=self.dtype, kernel_init=kernel_init, name=name)(y)

        embedded = dense(time_embedding.sinusoidal(time, 2 * (self.width // 2)), "time_0")
        embedded = dense(nn.swish(embedded), "time_1")
        # Channels are counted next to the maps, which have fewer in a compacted network.
        y, count = conv(x, self.width, "image"), self.width
        kept = [(y, count)]
        for stage, features in enumerate(sizes):
            for i in range(self.blocks):
                y, count = block(y, count, features, f"down_{stage}_{i}"), features
                kept.append((y, count))
            if stage < len(sizes) - 1:
                y = conv(y, count, f"down_{stage}", strides=2)
                kept.append((y, count))
        y = res_block(y, count, count, "middle_0")
        y = attention(y, count, "middle_attention")
        y = res_block(y, count, count, "middle_1")
        for stage, features in reversed(list(enumerate(sizes))):
            for i in range(self.blocks + 1):
                other, others = kept.pop()
                y = block(jnp.concatenate([y, other], axis=-1), count + others, features, f"up_{stage}_{i}")
                count = features
            if stage:
                y = conv(y, count, f"up_{stage}", resample="double")
        y = nn.swish(_norm(y, count, self.groups, self.dtype, "norm"))
        return conv(y, self.channels, "output", last_init).astype(jnp.float32)

    def _check(self, x: Map) -> None:
        halvings = len(self.multipliers) - 1
        if self.image_size % 2**halvings:
            raise ValueError(
                f"image_size is {self.image_size}, which {len(self.multipliers)} multipliers halve {halvings} times; "
                "give model.multipliers fewer entries, or resize the images."
            )
        if x.ndim != 4 or x.shape[1:] != (self.image_size, self.image_size, self.channels):
            wanted = [self.image_size, self.image_size, self.channels]
            raise ValueError(
                f"The network was made for images of [batch, {', '.join(map(str, wanted))}] and got {list(x.shape)}; "
                "set its image_size and channels to those of the data."
            )
