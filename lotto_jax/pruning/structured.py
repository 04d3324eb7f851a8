"""Scores and masks of the channels of any network, over the groups that `dependency.axis_groups` finds.

A group mask is a channel mask with names of groups for keys: `{group name: bool array [size]}`, True = kept. It says
that every slice of a masked channel is zero, in all axes that the group lies in, so it needs no norm to zero.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree

from lotto_jax.pruning import dependency
from lotto_jax.pruning.channels import ChannelMask
from lotto_jax.pruning.masks import Path, path_name

Score = Literal["magnitude", "lamp", "taylor", "random"]
Pool = Literal["all", "group", "isomorphic"]


def channel_scores(
    groups: dependency.AxisGroups,
    params: PyTree[Float[Array, "..."]],
    score: Score = "magnitude",
    *,
    gradient: PyTree[Float[Array, "..."]] | None = None,
    key: Key[Array, ""] | None = None,
    pool: Pool = "all",
) -> dict[str, Float[Array, "size"]]:
    """A score of every channel that can go, for `channels.channel_mask`; higher = keep.

    Scores count what lies under "params" where the variables have this key, so no running statistics. With w the
    entries of a channel in all axes of its group (an entry in two of them counts twice):

    - "magnitude": sqrt(sum w^2), group magnitude as in DepGraph (Fang et al., CVPR 2023);
    - "lamp": sum w^2 divided by the same of all channels of the group that are not smaller (Lee et al., ICLR 2021, eq.
      4, of channels instead of weights): the largest channel of each group has 1;
    - "taylor": sum |w * dL/dw|, the first order of what removing the channel changes (Molchanov et al., CVPR 2019, with
      the absolute value of each entry);
    - "random": uniform in [0, 1).

    The pool says who competes. In "all" the scores are compared as they are, over the whole network. In "group" and
    "isomorphic" a score becomes its rank in the pool, (rank + 1/2) / size, so that one global threshold takes the same
    share of every pool: of each group, or of all groups whose slices have the same shapes (Isomorphic Pruning, Fang et
    al., ECCV 2024).

    Args:
      groups: of `axis_groups(fn, params, ...)`.
      params: the params or variables that the groups were found for, pytree of float arrays; may be traced.
      score: one of the above.
      gradient: of the loss, with the structure of `params`, or of what is under "params"; for "taylor".
      key: a typed key; for "random".
      pool: "all", "group" or "isomorphic".

    Returns:
      `{group name: [size] float32}`, names as in `groups.named`.

    Raises:
      ValueError: for an unknown score or pool, without a gradient or key that is needed, if nothing can be pruned, or
        if `params` do not fit the groups.

    >>> groups = axis_groups(model.apply, variables, images)
    >>> mask = channel_mask(channel_scores(groups, variables, "lamp"), 0.5)
    """
    named = groups.named
    if not named:
        raise ValueError("No group can lose channels; print(axis_groups(...)) says why.")
    leaves = _trainable(params)
    shapes = check_fit(groups, params, "params/" if any(name.startswith("params/") for name in leaves) else "")
    if score == "random":
        if key is None:
            raise ValueError("Random channel scores need key, a typed key of jax.random.key.")
        keys = jax.random.split(key, len(named))
        result = {n: jax.random.uniform(k, (g.size,)) for k, (n, g) in zip(keys, named.items(), strict=True)}
    elif score == "taylor":
        if gradient is None:
            raise ValueError("Taylor channel scores need gradient, jax.grad of the loss at params.")
        slopes = {n.removeprefix("params/"): g for n, g in _trainable(gradient).items()}
        products = {n: abs(_f32(x) * _f32(slopes[n.removeprefix("params/")])) for n, x in leaves.items()}
        result = {n: channel_sums(g, products) for n, g in named.items()}
    elif score in ("magnitude", "lamp"):
        squares = {n: _f32(x) ** 2 for n, x in leaves.items()}
        result = {n: channel_sums(g, squares) for n, g in named.items()}
        result = {n: jnp.sqrt(x) if score == "magnitude" else _lamp(x) for n, x in result.items()}
    else:
        raise ValueError(f"score is {score!r}; channel scores are magnitude, lamp, taylor and random.")
    if pool == "all":
        return result
    if pool not in ("group", "isomorphic"):
        raise ValueError(f"pool is {pool!r}; channels compete in all, group or isomorphic.")
    pools: dict[Any, list[str]] = {}
    for name, group in named.items():
        pools.setdefault(name if pool == "group" else _slice_shapes(group, shapes), []).append(name)
    for names in pools.values():
        together = jnp.concatenate([result[n] for n in names])
        ranks = (jnp.argsort(jnp.argsort(together)) + 0.5) / together.size
        parts = jnp.split(ranks, np.cumsum([result[n].size for n in names])[:-1])
        result.update(zip(names, parts, strict=True))
    return result


def _f32(x: Array) -> Array | np.ndarray:
    """float32, on the host if it can be there: a network has many shapes, and on a device each needs compilations."""
    if isinstance(x, jax.core.Tracer) or (isinstance(x, jax.Array) and not x.is_fully_addressable):
        return jnp.asarray(x).astype(jnp.float32)
    return np.asarray(x).astype(np.float32)


def _trainable(tree: PyTree) -> dict[str, Array]:
    leaves = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}
    params = {name: x for name, x in leaves.items() if name.startswith("params/")}
    return params or leaves


def channel_sums(group: dependency.Group, leaves: Mapping[str, Array | np.ndarray]) -> Float[Array, "size"]:
    """For each channel of a group, the sum of its slices in `leaves`, where these have them."""
    total = np.zeros(group.size, np.float32)
    for (name, axis), indices in group.axes.items():
        if name in leaves:
            along = leaves[name].sum(tuple(a for a in range(leaves[name].ndim) if a != axis))
            total = total + along[indices].sum(1)
    return jnp.asarray(total)


def _lamp(squares: Float[Array, "size"]) -> Float[Array, "size"]:
    order = jnp.argsort(squares)
    rising = squares[order]
    not_smaller = jnp.flip(jnp.cumsum(jnp.flip(rising)))
    return jnp.zeros_like(squares).at[order].set(rising / jnp.where(not_smaller > 0, not_smaller, 1))


def _slice_shapes(group: dependency.Group, shapes: Mapping[str, tuple[int, ...]]) -> tuple:
    """What makes groups isomorphic: axis, repeats and shape of a slice of each of their leaves."""
    return tuple(
        sorted(
            (axis, indices.shape[1], tuple(n for a, n in enumerate(shapes[name]) if a != axis))
            for (name, axis), indices in group.axes.items()
        )
    )


def mask_channels(groups: dependency.AxisGroups, params: PyTree, mask: ChannelMask) -> PyTree:
    """`params` with every slice of the masked channels zero, in all axes that their groups lie in.

    Running statistics are zeroed as well where `params` are variables. Where norms divide by a stored variance without
    adding an epsilon to it, that would divide by zero.

    Args:
      groups: of `axis_groups(fn, params, ...)`.
      params: what the groups were found for; may be traced, as may the mask.
      mask: `{group name: bool array [size]}`, True = kept, of `channel_mask(channel_scores(...), fraction)`.

    Raises:
      ValueError: if `mask` names no group, has another size or is not boolean, or `params` do not fit the groups.
    """
    shapes = check_fit(groups, params)
    kept: dict[dependency.Leaf, Array] = {}
    for group, keep in checked(groups, mask):
        for (name, axis), indices in group.axes.items():
            before = kept.setdefault((name, axis), jnp.ones(shapes[name][axis], bool))
            kept[name, axis] = before.at[indices].set(jnp.broadcast_to(jnp.asarray(keep)[:, None], indices.shape))

    def leaf(path: Path, x: Array) -> Array:
        for axis in range(np.ndim(x)):
            if (keep := kept.get((path_name(path), axis))) is not None:
                x = jnp.where(keep.reshape([-1 if a == axis else 1 for a in range(x.ndim)]), x, jnp.zeros((), x.dtype))
        return x

    return jax.tree_util.tree_map_with_path(leaf, params)


def check_fit(groups: dependency.AxisGroups, params: PyTree, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Shapes of the leaves of `params` by name, if these have the axes of all prunable groups.

    Raises:
      ValueError: if a leaf whose name starts with `prefix` is missing, or an axis is of another size.
    """
    shapes = {path_name(path): np.shape(x) for path, x in jax.tree_util.tree_leaves_with_path(params)}
    sizes = Counter[dependency.Leaf]()
    for group in groups.groups:
        sizes.update({leaf: indices.size for leaf, indices in group.axes.items()})
    for name, axis in dict.fromkeys(leaf for group in groups.prunable for leaf in group.axes):
        shape = shapes.get(name, ())
        if name.startswith(prefix) and (len(shape) <= axis or shape[axis] != sizes[name, axis]):
            has = f"{name!r} has shape {shape}" if name in shapes else f"there is no {name!r}"
            raise ValueError(f"params do not fit the groups: {has}; give what the groups were found for.")
    return shapes


def check_mask(name: str, keep: Bool[Array, "..."]) -> None:
    """Raise ValueError unless an entry of a channel mask is a boolean array."""
    found = getattr(keep, "dtype", type(keep).__name__)
    if found != np.bool_:
        raise ValueError(f"The channel mask at {name!r} is {found}, not a boolean array; make it with channel_mask.")


def checked(groups: dependency.AxisGroups, mask: ChannelMask) -> list[tuple[dependency.Group, Bool[Array, "size"]]]:
    """The groups that a mask names, with what it keeps of them."""
    named = groups.named
    for name, keep in mask.items():
        if name not in named:
            raise ValueError(
                f"The channel mask names {name!r}, which is no group that can lose channels; make it from "
                f"channel_scores(axis_groups(...), ...), whose groups are {', '.join(named) or 'none'}."
            )
        check_mask(name, keep)
        if keep.shape != (named[name].size,):
            raise ValueError(
                f"The channel mask has shape {keep.shape} at {name!r}, a group of {named[name].size} channels; this "
                "mask belongs to a network of another size."
            )
    return [(named[name], keep) for name, keep in mask.items()]
