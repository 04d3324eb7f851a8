"""Pruning as pure functions of pytrees; imports only JAX and NumPy (and jaxtyping for annotations)."""

from lotto_jax.pruning.masks import (
    Mask,
    Params,
    apply,
    check,
    in_components,
    is_kernel,
    num_kept,
    num_prunable,
    ones,
    pack,
    path_name,
    sparsity,
    stack,
    unpack,
)
from lotto_jax.pruning.prune import global_prune, layerwise_prune, prune_to_sparsity, random_like
from lotto_jax.pruning.scores import Scores, magnitude, random_scores

__all__ = [
    "Mask",
    "Params",
    "Scores",
    "apply",
    "check",
    "global_prune",
    "in_components",
    "is_kernel",
    "layerwise_prune",
    "magnitude",
    "num_kept",
    "num_prunable",
    "ones",
    "pack",
    "path_name",
    "prune_to_sparsity",
    "random_like",
    "random_scores",
    "sparsity",
    "stack",
    "unpack",
]
