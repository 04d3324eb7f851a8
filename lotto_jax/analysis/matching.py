"""Channels of one network in the order of another's, by weight matching (Ainsworth et al., ICLR 2023, section 3.2).

Two trainings of one network from different seeds number its channels differently. A mask of one fits the other only
after its channels are permuted (sparse training by aligned masks: Adnan et al., ICML 2025). Which axes have to be
permuted together is what `pruning.axis_groups` reads off the function: channels that can be removed together can change
places, unless the function treats them by their number (a constant for each channel, say).
"""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import Float, Int, PyTree
from scipy.optimize import linear_sum_assignment

from lotto_jax.pruning.dependency import Group
from lotto_jax.pruning.masks import path_name

Permutation: TypeAlias = Int[np.ndarray, "channels"]


def permute(tree: PyTree, groups: Sequence[Group], permutations: Sequence[Permutation]) -> PyTree:
    """A tree whose channel i of each group is channel `permutation[i]` of the given one.

    Args:
      tree: arrays whose leaves have the names that the groups have: params or variables, or their masks, statistics or
        moments. Leaves that no group names, and scalars (of a mask), stay as they are.
      groups: of the axes, as `pruning.axis_groups(...).prunable` has them.
      permutations: one a group.

    Raises:
      ValueError: if there is another number of permutations, or one that is none of its group's channels.
    """
    if len(groups) != len(permutations):
        raise ValueError(f"There are {len(permutations)} permutations for {len(groups)} groups; give one for each.")
    for number, (group, permutation) in enumerate(zip(groups, permutations, strict=True)):
        if not np.array_equal(np.sort(permutation), np.arange(group.size)):
            raise ValueError(f"Permutation {number} does not hold each of the {group.size} channels of its group once.")
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    named = {path_name(path): np.asarray(leaf) for path, leaf in leaves}
    return jax.tree.unflatten(structure, list(_permuted(named, groups, permutations).values()))


def _permuted(
    named: dict[str, np.ndarray], groups: Sequence[Group], permutations: Sequence[Permutation]
) -> dict[str, np.ndarray]:
    named = dict(named)
    for group, permutation in zip(groups, permutations, strict=True):
        for (name, axis), positions in group.axes.items():
            if name in named and named[name].ndim:
                order = np.arange(named[name].shape[axis])
                order[positions] = positions[permutation]
                named[name] = named[name].take(order, axis)
    return named


def _similarity(
    group: Group, a: dict[str, np.ndarray], b: dict[str, np.ndarray]
) -> Float[np.ndarray, "channels channels"]:
    """Sum of the products of all weights of channel i of `a` with those of channel j of `b`."""
    total = np.zeros((group.size, group.size))
    for (name, axis), positions in group.axes.items():
        if name in a:
            rows = [np.moveaxis(x[name].take(positions, axis), (axis, axis + 1), (0, 1)) for x in (a, b)]
            total += rows[0].reshape(group.size, -1) @ rows[1].reshape(group.size, -1).T
    return total


def match(groups: Sequence[Group], params: PyTree, reference: PyTree, sweeps: int = 100) -> list[Permutation]:
    """Permutations that bring the channels of `params` next to those of `reference`, for `permute`.

    Coordinate descent: each group in turn takes the assignment of channels with the largest sum of products of weights,
    the other groups as they are; it ends when a sweep over all groups changes nothing. As the problem is hard, it is a
    local optimum; it is never worse than the order that is given. Computed in float64 on the host.

    Args:
      groups: of the axes, as `pruning.axis_groups(...).prunable` has them.
      params: arrays; those that the groups name count.
      reference: of the same structure and shapes.
      sweeps: at most.

    Returns:
      A permutation a group: `permute(params, groups, match(...))` is close to `reference`.

    Raises:
      ValueError: if the shapes differ, naming the leaf.
    """
    a, b = (
        {path_name(path): np.asarray(leaf, np.float64) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (reference, params)
    )
    for name in a.keys() | b.keys():
        if name not in a or name not in b or a[name].shape != b[name].shape:
            shapes = [x[name].shape if name in x else "nothing" for x in (b, a)]
            raise ValueError(f"params have {shapes[0]} at {name!r}, the reference {shapes[1]}; match one network.")
    found = [np.arange(group.size) for group in groups]
    for _ in range(sweeps):
        changed = False
        for number, group in enumerate(groups):
            # A group that lies on two axes of one leaf makes the sum quadratic; a step that lowers it is not taken.
            step = linear_sum_assignment(_similarity(group, a, b), maximize=True)[1]
            tried = _permuted(b, [group], [step])
            if _agreement(group, a, tried) > _agreement(group, a, b) * (1 + 1e-12):
                b, found[number], changed = tried, found[number][step], True
        if not changed:
            break
    return found


def _agreement(group: Group, a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """Sum of the products of the weights that permuting a group moves."""
    return sum(float(np.vdot(a[name], b[name])) for name in dict.fromkeys(n for n, _ in group.axes) if name in a)
