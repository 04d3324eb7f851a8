"""Pruning: from scores and a mask to a smaller mask, exactly and without a sort."""

import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Scalar

from lotto_jax.pruning import distributions, masks, patterns, selection
from lotto_jax.pruning.masks import Mask
from lotto_jax.pruning.patterns import Pattern
from lotto_jax.pruning.scores import Scores, lamp

Scope = Literal["global", "layerwise", "lamp"]


def _check(scores: Scores, mask: Mask, **fractions: float | Array) -> None:
    """Raise ValueError on what can be seen before running: structure, shapes, NaN and fractions that are not traced."""
    masks.check(scores, mask)
    for name, value in fractions.items():
        if not isinstance(value, jax.core.Tracer) and not np.all((np.asarray(value) >= 0) & (np.asarray(value) <= 1)):
            raise ValueError(f"{name} must lie in [0, 1], not {value}.")
    for (path, score), m in zip(jax.tree_util.tree_leaves_with_path(scores), jax.tree.leaves(mask), strict=True):
        if m.ndim and not jnp.issubdtype(score.dtype, jnp.floating):
            raise ValueError(
                f"The scores at {masks.path_name(path)!r} are {score.dtype}, not floating point; give floating scores, "
                "or make the mask with a predicate that leaves that leaf out."
            )
        concrete = not isinstance(score, jax.core.Tracer) and not isinstance(m, jax.core.Tracer)
        if m.ndim and concrete and bool(jnp.any(jnp.isnan(score) & m)):
            raise ValueError(
                f"The scores at {masks.path_name(path)!r} hold NaN; the network they come from has diverged."
            )


def _remove(scores: Scores, mask: Mask, k: Int[Array, ""]) -> Mask:
    """Mask without its k lowest-scored kept entries, pooled over all prunable leaves."""
    leaves, structure = jax.tree.flatten(mask)
    values = jax.tree.leaves(scores)
    where = [i for i, m in enumerate(leaves) if masks.is_prunable(m)]
    removed = selection.lowest([values[i] for i in where], [leaves[i] for i in where], k)
    for i, gone in zip(where, removed, strict=True):
        leaves[i] = leaves[i] & ~gone
    return jax.tree.unflatten(structure, leaves)


@jax.jit
def _global_prune(scores: Scores, mask: Mask, fraction: Float[Array, ""]) -> Mask:
    return _remove(scores, mask, selection.rounded_share(fraction, masks.num_kept(mask)))


@jax.jit
def _layerwise_prune(scores: Scores, mask: Mask, fraction: Float[Array, ""]) -> Mask:
    return jax.tree.map(lambda s, m: _global_prune(s, m, fraction), scores, mask)


@jax.jit
def _prune_to_sparsity(scores: Scores, mask: Mask, sparsity: Float[Array, ""]) -> Mask:
    size = masks.num_prunable(mask)
    target = selection.rounded_share(sparsity, jnp.int32(size))
    return _remove(scores, mask, jnp.maximum(target - (size - masks.num_kept(mask)), 0))


def global_prune(scores: Scores, mask: Mask, fraction: Scalar | float) -> Mask:
    """Remove the lowest-scored `fraction` of the kept entries, pooled over all prunable leaves: an IMP round.

    Removes exactly `round(fraction * num_kept(mask))` entries (half to even); among equal scores the first ones, in
    leaf order and then row-major. A pruned entry is never revived. O(n) per call, without a sort; jitted.

    Args:
      scores: float pytree with the structure of `mask`; higher = keep. Compared as float32, or as float64 where
        `jax_enable_x64` is on and a leaf is float64. Inside a jit, where a NaN cannot raise, it counts as the lowest
        score and is removed first.
      mask: boolean pytree; scalar leaves stay as they are.
      fraction: in [0, 1], may be traced; read to 7 decimals.

    Returns:
      The smaller mask.

    Raises:
      ValueError: if scores do not fit the mask, hold NaN (outside a jit) or the fraction is out of range.

    >>> mask = ones(params)
    >>> for _ in range(3):
    ...     params = train(params, mask)
    ...     mask = global_prune(magnitude(params), mask, 0.2)
    >>> print(f"{sparsity(mask):.2f}")
    0.49
    """
    _check(scores, mask, fraction=fraction)
    return _global_prune(scores, mask, jnp.asarray(fraction, jnp.float32))


def layerwise_prune(scores: Scores, mask: Mask, fraction: Scalar | float) -> Mask:
    """As `global_prune`, but each prunable leaf loses `round(fraction * kept entries of that leaf)` of its own."""
    _check(scores, mask, fraction=fraction)
    return _layerwise_prune(scores, mask, jnp.asarray(fraction, jnp.float32))


def prune_to_sparsity(scores: Scores, mask: Mask, sparsity: Scalar | float) -> Mask:
    """Remove the lowest-scored kept entries until `round(sparsity * num_prunable(mask))` are pruned (one-shot pruning).

    Arguments and errors as in `global_prune`. A mask that is already sparser is returned unchanged.
    """
    _check(scores, mask, sparsity=sparsity)
    return _prune_to_sparsity(scores, mask, jnp.asarray(sparsity, jnp.float32))


@functools.partial(jax.jit, static_argnames=("scope", "pattern"))
def _scoped_prune(scores: Scores, mask: Mask, fractions: list, scope: Scope, pattern: Pattern) -> Mask:
    leaves, structure = jax.tree.flatten(mask)
    where = [i for i, m in enumerate(leaves) if masks.is_prunable(m)]
    values = jax.tree.leaves(scores)
    found = [patterns.to_units(pattern, values[i], leaves[i]) for i in where]
    units, kept, may_go = ([leaf[part] for leaf in found] for part in range(3))
    if scope == "lamp":
        units = lamp(units, kept)
    pools = [[j] for j in range(len(where))] if scope == "layerwise" else [list(range(len(where)))]
    for pool, fraction in zip(pools, fractions, strict=True):
        allowed = [may_go[j] for j in pool]
        count = selection.rounded_share(fraction, masks.num_kept([kept[j] for j in pool]))
        gone = selection.lowest([units[j] for j in pool], allowed, jnp.minimum(count, masks.num_kept(allowed)))
        for j, g in zip(pool, gone, strict=True):
            leaf = leaves[where[j]]
            leaves[where[j]] = leaf & ~patterns.to_entries(pattern, g, leaf.shape)
    return jax.tree.unflatten(structure, leaves)


def scoped_prune(
    scores: Scores,
    mask: Mask,
    fraction: Scalar | float | Mapping[str, Scalar | float],
    scope: Scope = "global",
    pattern: Pattern | None = None,
) -> Mask:
    """Remove the lowest-scored `fraction` of what is kept, selected from a scope and in a pattern.

    Args:
      scores: float pytree with the structure of `mask`; higher = keep. Non-negative for "lamp".
      mask: boolean pytree; scalar leaves stay as they are.
      fraction: in [0, 1], may be traced. With the scope "layerwise" also a mapping from regular expressions over path
        names to fractions: each leaf takes the first that matches its whole name, and stays as it is if none does.
      scope: "global" pools all leaves, "layerwise" prunes each by the same fraction, "lamp" pools them by scores that
        are normalized within each leaf (`lamp`).
      pattern: what goes together, from `patterns`; default: every entry by itself. Fractions count blocks, and with
        `patterns.nm` no more than the pattern allows goes.

    Returns:
      The smaller mask.

    Raises:
      ValueError: as `global_prune`, and if the scope is unknown or a mapping comes with another one than "layerwise",
        an expression matches no leaf, or the pattern does not fit a leaf.

    >>> scores, mask = magnitude(params), ones(params)
    >>> half = scoped_prune(scores, mask, 0.5, "lamp", patterns.nm(2, 4))
    >>> by_name = scoped_prune(scores, mask, {"conv/.*": 0.5, ".*kernel": 0.9}, "layerwise")
    """
    if scope not in ("global", "layerwise", "lamp"):
        raise ValueError(f"scope is {scope!r}; it takes one of global, layerwise, lamp.")
    names = [masks.path_name(p) for p, m in jax.tree_util.tree_leaves_with_path(mask) if masks.is_prunable(m)]
    if isinstance(fraction, Mapping):
        if scope != "layerwise":
            raise ValueError(
                f"fraction is a mapping, which gives each leaf its own; the scope is {scope!r}, not layerwise."
            )
        fractions = distributions.by_expression(names, fraction, 0.0)
    else:
        fractions = [fraction] * (len(names) if scope == "layerwise" else 1)
    for each in fractions:
        _check(scores, mask, fraction=each)
    fractions = [jnp.asarray(f, jnp.float32) for f in fractions]
    return _scoped_prune(scores, mask, fractions, scope, patterns.entries() if pattern is None else pattern)


@jax.jit
def random_like(key: Array, mask: Mask) -> Mask:
    """A random mask with as many kept entries in every leaf as `mask` (its layer-wise sparsity, other positions).

    The entries with the lowest of independent uniform scores are pruned, exactly as many as in `mask`; without a sort.

    Args:
      key: a typed key.
      mask: boolean pytree; scalar leaves stay as they are.

    >>> mask = global_prune(magnitude(params), ones(params), 0.5)
    >>> random = random_like(key, mask)
    >>> jax.tree.map(jnp.sum, random) == jax.tree.map(jnp.sum, mask)
    True
    """

    def draw(key: Array, leaf: Array) -> Array:
        if not leaf.ndim or not leaf.size:
            return leaf
        # Along one axis: a TPU takes several times as long to compile random bits over the axes of a kernel.
        scores = jax.random.uniform(key, (leaf.size,), jnp.float32)
        (gone,) = selection.lowest([scores], [jnp.ones(leaf.size, bool)], leaf.size - masks.count_true(leaf))
        return ~gone.reshape(leaf.shape)

    leaves, structure = jax.tree.flatten(mask)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [draw(k, leaf) for k, leaf in zip(keys, leaves, strict=True)])
