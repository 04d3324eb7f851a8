"""Scores that need no data: pytrees with the structure of params; higher = keep."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from lotto_jax.pruning.masks import Mask, Params

Scores: TypeAlias = PyTree[Float[Array, "..."]]
"""The structure of params: how much each weight is worth keeping, higher is more."""


def magnitude(params: Params) -> Scores:
    """|theta|, the score of magnitude pruning (Han et al. 2015; Frankle & Carbin 2019), in the dtype of params."""
    return jax.tree.map(jnp.abs, params)


def random_scores(key: Key[Array, ""], params: Params) -> Scores:
    """Independent uniform scores in [0, 1), float32: pruning by them removes entries at random.

    Args:
      key: a typed key (`jax.random.key`).
      params: pytree of arrays; only structure and shapes matter.
    """
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        structure, [jax.random.uniform(k, leaf.shape, jnp.float32) for k, leaf in zip(keys, leaves, strict=True)]
    )


def lamp(scores: Scores, mask: Mask) -> Scores:
    """Layer-adaptive scores (Lee et al., ICLR 2021, eq. 1): comparable over leaves, so that one pool spares small ones.

    The score of entry u of a leaf is s_u^2 / (sum of s_v^2 over the entries v of the leaf that would go after u). Only
    kept entries count. The last entry of each leaf has the score 1, so no leaf is emptied before all others are. Sorts
    each leaf. Of equal entries the later one has the higher score, as pruning takes the earlier one first.

    Args:
      scores: non-negative, `magnitude(params)` in the paper; higher = keep.
      mask: boolean pytree of the same structure; the scores of its scalar leaves stay as they are.

    Returns:
      Scores in (0, 1], 0 where pruned; float32, or float64 where scores are.

    >>> lamp({"w": jnp.asarray([[2.0, 1.0]])}, {"w": jnp.ones((1, 2), bool)})
    {'w': Array([[1. , 0.2]], dtype=float32)}
    """

    def leaf(s: Array, m: Array) -> Array:
        if not m.ndim or not s.size:
            return s
        dtype = jnp.promote_types(s.dtype, jnp.float32)
        values = jnp.where(m & ~jnp.isnan(s), s, 0).astype(dtype).reshape(-1)
        largest = jnp.max(values)  # the score is a ratio: nothing under- or overflows if the largest is 1
        square = (values / jnp.where(largest > 0, largest, 1)) ** 2
        order = jnp.argsort(square, stable=True)
        ascending = square[order]
        after = jnp.flip(jnp.cumsum(jnp.flip(ascending)))
        ratio = ascending / jnp.where(after > 0, after, 1)
        # In exact arithmetic it never falls; the sum is rounded.
        ratio = jax.lax.cummax(ratio)
        found = jnp.zeros_like(square).at[order].set(ratio).reshape(s.shape)
        return jnp.where(jnp.isnan(s) & m, jnp.nan, jnp.where(m, found, 0))

    return jax.tree.map(leaf, scores, mask)
