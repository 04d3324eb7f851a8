"""Patterns of pruning: blocks of entries that go together, and N:M, which spares entries of every group.

A pattern cuts each leaf into blocks. A block has the mean score of its kept entries, counts as one in every number and
fraction, and goes whole. No pattern makes a masked network faster by itself; what hardware makes of it is another
matter.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lotto_jax.pruning import selection

Shape = tuple[int, ...]


class Pattern(NamedTuple):
    """Made by the functions of this module; equal arguments give the same object, so it can be a static argument.

    Attributes:
      block: `shape of a leaf -> shape of its blocks`. The last blocks of an axis may be smaller.
      spared: None, or `(scores, kept) -> bool` of a leaf's shape: kept entries that may not go now.
      least: `shape of a leaf -> how many of its blocks stay whatever the scores`, shorter last groups left out.
    """

    block: Callable[[Shape], Shape]
    spared: Callable[[Float[Array, "..."], Bool[Array, "..."]], Bool[Array, "..."]] | None = None
    least: Callable[[Shape], int] = lambda shape: 0


def _axis(axis: int, shape: Shape) -> int:
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis is {axis}, but a prunable leaf has shape {shape}; leave it out by `prunable`.")
    return axis % len(shape)


@functools.cache
def entries() -> Pattern:
    """Every entry by itself: unstructured pruning."""
    return Pattern(lambda shape: (1,) * len(shape))


@functools.cache
def blocks(*sizes: int) -> Pattern:
    """Blocks of the last axes: `blocks(4, 4)` of the inputs and outputs of a Flax kernel.

    Raises:
      ValueError: if a size is below 1; in use, if a leaf has fewer axes.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"The sizes of blocks are {sizes}; give one or more positive integers.")

    def block(shape: Shape) -> Shape:
        if len(shape) < len(sizes):
            raise ValueError(f"Blocks of {sizes} need {len(sizes)} axes, but a prunable leaf has shape {shape}.")
        return (1,) * (len(shape) - len(sizes)) + sizes

    return Pattern(block)


@functools.cache
def channels(axis: int = -1) -> Pattern:
    """All entries of one index along `axis`: output channels of a Flax kernel for -1, input channels for -2.

    Each leaf is cut by itself. `channel_mask`, `axis_groups` and `compact` remove a channel from all leaves that it
    runs through, and make the network smaller.
    """

    def block(shape: Shape) -> Shape:
        one = _axis(axis, shape)
        return tuple(1 if i == one else n for i, n in enumerate(shape))

    return Pattern(block)


@functools.cache
def heads(number: int, axis: int = -1) -> Pattern:
    """Heads of an attention kernel whose `axis` holds `number` heads one after the other.

    Where heads have an axis of their own (Flax: [features, heads, head features]), `channels` of that axis is the same.

    Raises:
      ValueError: in use, if the axis is not a multiple of `number`.
    """

    def block(shape: Shape) -> Shape:
        one = _axis(axis, shape)
        if shape[one] % number:
            raise ValueError(f"axis {axis} of a leaf of shape {shape} does not hold {number} heads; correct `number`.")
        return tuple(n // number if i == one else n for i, n in enumerate(shape))

    return Pattern(block)


@functools.cache
def nm(n: int = 2, m: int = 4, axis: int = -2) -> Pattern:
    """N:M sparsity (Mishra et al. 2021): of m entries in a row along `axis`, at least n are kept.

    Pruned to the sparsity 1 - n/m, every group has exactly n; until then the lowest entries go that are not among the n
    best of their group. No call goes further. The axis of a Flax kernel's inputs is -2. A last group that is shorter
    than m keeps n too.

    Raises:
      ValueError: unless 0 < n < m.
    """
    if not 0 < n < m:
        raise ValueError(f"n:m is {n}:{m}; n must be positive and below m.")

    def spared(scores: Float[Array, "..."], kept: Bool[Array, "..."]) -> Bool[Array, "..."]:
        last = _axis(axis, scores.shape)
        # From 0 for what is not kept, so that it never is among the best; NaN is the lowest of what is.
        dtype = jnp.float64 if scores.dtype == jnp.float64 else jnp.float32
        keys = selection.order_keys(scores, jnp.ones_like(kept), dtype)
        keys = jnp.where(kept, jnp.maximum(keys, keys.dtype.type(1)), keys.dtype.type(0))
        keys = jnp.moveaxis(keys, last, -1)
        length = keys.shape[-1]
        keys = jnp.pad(keys, [(0, 0)] * (keys.ndim - 1) + [(0, -length % m)])
        keys = keys.reshape(*keys.shape[:-1], -1, m)
        # Better: higher, or as high and later (of equal scores the first go).
        mine, other = keys[..., :, None], keys[..., None, :]
        position = jnp.arange(m, dtype=jnp.int32)
        later = jnp.broadcast_to(position[None, :] > position[:, None], jnp.broadcast_shapes(mine.shape, other.shape))
        better = (other > mine) | ((other == mine) & later)
        best = jnp.sum(better, axis=-1, dtype=jnp.int32) < n
        best = best.reshape(*best.shape[:-2], -1)[..., :length]
        return jnp.moveaxis(best, -1, last) & kept

    def least(shape: Shape) -> int:
        length = shape[_axis(axis, shape)]
        return math.prod(shape) // length * (length // m) * n if length else 0

    return Pattern(lambda shape: (1,) * len(shape), spared, least)


def _cut(x: Array, block: Shape) -> Array:
    """[blocks, entries, blocks, entries, ...], padded with zeros."""
    x = jnp.pad(x, [(0, -n % b) for n, b in zip(x.shape, block, strict=True)])
    return x.reshape([k for n, b in zip(x.shape, block, strict=True) for k in (n // b, b)])


def to_units(
    pattern: Pattern, scores: Float[Array, "..."], kept: Bool[Array, "..."]
) -> tuple[Float[Array, "..."], Bool[Array, "..."], Bool[Array, "..."]]:
    """Scores of a leaf's blocks, which of them are kept, and which of these may go.

    Args:
      pattern: of this module.
      scores: of a leaf.
      kept: of the same shape. A block is kept if one of its entries is.
    """
    block = pattern.block(scores.shape)
    if any(b > 1 for b in block):
        axes = tuple(range(1, 2 * scores.ndim, 2))
        dtype = jnp.promote_types(scores.dtype, jnp.float32)
        total = jnp.sum(_cut(jnp.where(kept, scores.astype(dtype), 0), block), axis=axes)
        number = jnp.sum(_cut(kept, block), axis=axes, dtype=jnp.int32)
        scores, kept = total / jnp.maximum(number, 1).astype(dtype), number > 0
    return scores, kept, kept if pattern.spared is None else kept & ~pattern.spared(scores, kept)


def to_entries(pattern: Pattern, units: Bool[Array, "..."], shape: Shape) -> Bool[Array, "..."]:
    """What holds for the blocks of a leaf of `shape`, for each of its entries."""
    block = pattern.block(shape)
    if all(b == 1 for b in block):
        return units
    spread = [k for n, b in zip(units.shape, block, strict=True) for k in (n, b)]
    x = jnp.broadcast_to(units.reshape([k for n in units.shape for k in (n, 1)]), spread)
    x = x.reshape([n * b for n, b in zip(units.shape, block, strict=True)])
    return x[tuple(slice(n) for n in shape)]


def units_shape(pattern: Pattern, shape: Shape) -> Shape:
    """How many blocks a leaf of `shape` has along each axis."""
    return tuple(-(-n // b) for n, b in zip(shape, pattern.block(shape), strict=True))
