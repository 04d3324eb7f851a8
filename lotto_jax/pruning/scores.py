"""Scores that need no data: pytrees with the structure of params; higher = keep."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from lotto_jax.pruning.masks import Params

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
