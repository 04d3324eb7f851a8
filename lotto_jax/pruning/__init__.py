"""Pruning as pure functions of pytrees; imports only JAX and NumPy (and jaxtyping for annotations)."""

from lotto_jax.pruning import patterns
from lotto_jax.pruning.channels import (
    EarlyBird,
    apply_channel_mask,
    batch_norm_scales,
    channel_mask,
    mask_distance,
    slimming_penalty,
)
from lotto_jax.pruning.compaction import compact
from lotto_jax.pruning.dependency import axis_groups
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
from lotto_jax.pruning.prune import global_prune, layerwise_prune, prune_to_sparsity, random_like, scoped_prune
from lotto_jax.pruning.saliency import grasp, mean_over, snip
from lotto_jax.pruning.scores import Scores, lamp, magnitude, random_scores
from lotto_jax.pruning.structured import channel_scores, mask_channels

__all__ = [
    "EarlyBird",
    "Mask",
    "Params",
    "Scores",
    "apply",
    "apply_channel_mask",
    "axis_groups",
    "batch_norm_scales",
    "channel_mask",
    "channel_scores",
    "check",
    "compact",
    "global_prune",
    "grasp",
    "in_components",
    "is_kernel",
    "lamp",
    "layerwise_prune",
    "magnitude",
    "mask_channels",
    "mask_distance",
    "mean_over",
    "num_kept",
    "num_prunable",
    "ones",
    "pack",
    "path_name",
    "patterns",
    "prune_to_sparsity",
    "random_like",
    "random_scores",
    "scoped_prune",
    "slimming_penalty",
    "snip",
    "sparsity",
    "stack",
    "unpack",
]
