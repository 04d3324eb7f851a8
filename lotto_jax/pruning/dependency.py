"""Which axes of which params must shrink together, read off the jaxpr of any JAX function."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.extend import core
from jaxtyping import Int, PyTree

from lotto_jax.pruning import propagation, rules
from lotto_jax.pruning.masks import path_name

Leaf = tuple[str, int]  # a leaf of params and one of its axes


class Group(NamedTuple):
    """Channels that lie in the same axes of the same params.

    Attributes:
      size: number of channels.
      axes: `{(leaf name, axis): indices}`; row i of the `[size, repeats]` int array are the positions of channel i
        there. More than one repeat is a channel that became several rows, as in a flatten.
      reason: why these channels cannot be removed, or "" if they can.
    """

    size: int
    axes: dict[Leaf, Int[np.ndarray, "size repeats"]]
    reason: str


class AxisGroups(NamedTuple):
    """The groups of a function; prints as a table, with the groups that can be pruned first."""

    groups: tuple[Group, ...]

    @property
    def prunable(self) -> tuple[Group, ...]:
        """The groups without a reason against removing channels from them."""
        return tuple(g for g in self.groups if not g.reason)

    @property
    def named(self) -> dict[str, Group]:
        """The prunable groups by name: the first axis that no other of them lies in, `conv/kernel[3]`."""
        members = Counter(leaf for group in self.prunable for leaf in group.axes)
        result = {}
        for group in self.prunable:
            own = next((leaf for leaf in group.axes if members[leaf] == 1), None)
            result[axis_names([(own, 1)] if own else _repeats(group))] = group
        return result

    def __str__(self) -> str:
        lines = ["channels  axes that shrink together"]
        lines += [f"{group.size:8d}  {axis_names(_repeats(group))}" for group in self.prunable]
        fixed: dict[str, list[tuple[Leaf, int]]] = {}
        for group in self.groups:
            if group.reason:
                fixed.setdefault(group.reason, []).extend(_repeats(group))
        lines += [f"   fixed  {axis_names(axes)}: {reason}" for reason, axes in fixed.items()]
        return "\n".join(lines)


def _repeats(group: Group) -> list[tuple[Leaf, int]]:
    return [(leaf, indices.shape[1]) for leaf, indices in group.axes.items()]


def axis_names(axes: Sequence[tuple[Leaf, int]]) -> str:
    """`conv/kernel[3], bn/{bias,scale}[0], dense/kernel[0] x16`: axes; how often a channel is there."""
    fields: dict[tuple[str, int, int], list[str]] = {}
    for (name, axis), repeats in axes:
        cut = max(name.rfind("/"), name.rfind(".")) + 1  # the names of a PyTorch state dict have dots
        fields.setdefault((name[:cut], axis, repeats), []).append(name[cut:])
    return ", ".join(
        parent
        + (names[0] if len(names) == 1 else "{" + ",".join(names) + "}")
        + f"[{axis}]"
        + (f" x{repeats}" if repeats > 1 else "")
        for (parent, axis, repeats), names in fields.items()
    )


class Analysis(NamedTuple):
    """What a walk over a function found: ids of all param axes, the classes they form, and the contractions.

    Attributes:
      ids: `{(leaf name, axis): [size] int array}` for every axis longer than 1.
      classes: union-find over the ids, with pins.
      uses: the contractions.
      jaxpr: what was walked.
      record: the abstract values there.
      results: the abstract values of the outputs.
    """

    ids: dict[Leaf, propagation.Ids]
    classes: propagation.Classes
    uses: list[propagation.Use]
    jaxpr: core.ClosedJaxpr
    record: propagation.Record
    results: list[propagation.Value]


def analyse(
    fn: Callable[..., PyTree],
    params: PyTree,
    *inputs: PyTree,
    zeros: Mapping[Leaf, propagation.Flags] | bool = False,
    resized: bool = False,
    pin_outputs: bool = True,
) -> Analysis:
    """Walk the jaxpr of `fn(params, *inputs)`.

    Args:
      fn: the function; it is traced, not run.
      params: pytree of arrays (or `jax.ShapeDtypeStruct`).
      *inputs: further arguments; all their axes are fixed.
      zeros: `{(leaf name, axis): flags}`: which slices along an axis are zero; or whether all are.
      resized: see `propagation.Walk`.
      pin_outputs: whether outputs of `fn`, and params that it does not read, keep their sizes.
    """
    closed = jax.make_jaxpr(lambda *args: fn(*args))(params, *inputs)  # a function of its own is traced anew
    walk, ids, arguments = propagation.Walk(rules.RULES, resized), {}, []
    leaves = jax.tree_util.tree_leaves_with_path(params)
    names = [path_name(path) for path, _ in leaves]
    for name, (_, leaf) in zip(names, leaves, strict=True):
        blocks = []
        for axis, size in enumerate(np.shape(leaf)):
            if size > 1:
                ids[name, axis] = walk.classes.new(size)
                zero = np.full(size, zeros) if isinstance(zeros, bool) else zeros.get((name, axis))
                zero = np.zeros(size, bool) if zero is None else np.asarray(zero)
                blocks.append(propagation.Block((axis,), ids[name, axis], zero))
        arguments.append(propagation.Value(np.shape(leaf), tuple(blocks)))
    arguments += [propagation.fixed_value(tuple(v.aval.shape)) for v in closed.jaxpr.invars[len(leaves) :]]
    results = walk.run(closed.jaxpr, closed.consts, arguments)
    for value in results if pin_outputs else []:
        walk.collapse(value, range(len(value.shape)), "output of the function")
    # What remains of an axis that was split must be a grid again: uniform along all of its parts but one.
    for split, why in walk.splits:
        roots = walk.classes.find(split)
        varying = [i for i in range(roots.ndim) if (roots != roots.take([0], axis=i)).any()]
        if len(varying) > 1:
            walk.classes.pin(split, f"split into several axes in {why}")
    if not pin_outputs:
        return Analysis(ids, walk.classes, walk.uses, closed, walk.called[0], results)
    read = {v for eqn in closed.jaxpr.eqns for v in eqn.invars if not isinstance(v, core.Literal)}
    read |= {v for v in closed.jaxpr.outvars if not isinstance(v, core.Literal)}
    unread = {name for name, var in zip(names, closed.jaxpr.invars, strict=False) if var not in read}
    for (name, _), own in ids.items():
        if name in unread:
            walk.classes.pin(own, "not used by the function")
    return Analysis(ids, walk.classes, walk.uses, closed, walk.called[0], results)


def members(analysis: Analysis) -> dict[int, dict[Leaf, list[int]]]:
    """`{class: {(leaf name, axis): indices}}`: where the indices of each class lie."""
    result: dict[int, dict[Leaf, list[int]]] = {}
    for leaf, ids in analysis.ids.items():
        for index, root in enumerate(analysis.classes.find(ids).tolist()):
            result.setdefault(root, {}).setdefault(leaf, []).append(index)
    return result


def signature(where: Mapping[Leaf, Sequence[int]]) -> tuple[tuple[Leaf, int], ...]:
    """Which axes a class lies in and how often; classes of the same signature form a group."""
    return tuple((leaf, len(indices)) for leaf, indices in where.items())


def group(analysis: Analysis) -> AxisGroups:
    """Collect the classes of an analysis into groups: those of one signature and one reason, as they come first."""
    found = {leaf: analysis.classes.find(ids) for leaf, ids in analysis.ids.items()}
    everywhere = np.concatenate([*found.values(), np.zeros(0, np.int64)])
    roots = everywhere[np.sort(np.unique(everywhere, return_index=True)[1])]  # a class for each, as they come first
    number = np.zeros(everywhere.max(initial=0) + 1, np.int64)
    number[roots] = np.arange(roots.size)
    numbers = {leaf: number[own] for leaf, own in found.items()}
    first_of: dict[bytes, Leaf] = {}  # many leaves hold the same classes in the same order: a convolution and its norm
    alike = {leaf: first_of.setdefault(own.tobytes(), leaf) for leaf, own in numbers.items()}
    orders = {leaf: np.argsort(numbers[leaf], stable=True) for leaf in first_of.values()}
    # A label says what is known of a class so far. Each leaf gives new labels to the classes in it: another one for
    # each label that they had and for each number of times that they are there.
    reasons, of_reason = analysis.classes.reasons(roots)
    labels, used = of_reason.copy(), len(reasons)
    for leaf, order in orders.items():
        ordered = numbers[leaf][order]
        starts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, [ordered.size]])
        classes, repeats = ordered[starts[:-1]], starts[1:] - starts[:-1]
        pairs = labels[classes] * (ordered.size + 1) + repeats
        new = np.unique(pairs, return_inverse=True)[1] if (pairs != pairs[0]).any() else np.zeros_like(pairs)
        labels[classes] = used + new
        used += int(new.max()) + 1
    _, first, group_of, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    parts: dict[Leaf, list[tuple[int, np.ndarray]]] = {}
    for leaf, order in orders.items():
        groups = group_of[numbers[leaf][order]]
        inside = np.unique(groups).tolist() if (groups != groups[0]).any() else [int(groups[0])]
        parts[leaf] = [(i, order[groups == i].reshape(sizes[i], -1)) for i in inside]
    axes: list[dict[Leaf, np.ndarray]] = [{} for _ in sizes]
    for leaf, same in alike.items():
        for i, indices in parts[same]:
            axes[i][leaf] = indices
    why = [reasons[i] for i in of_reason[first]]
    return AxisGroups(tuple(Group(int(sizes[i]), axes[i], why[i]) for i in np.argsort(first).tolist()))


def axis_groups(fn: Callable[..., PyTree], params: PyTree, *inputs: PyTree) -> AxisGroups:
    """Which axes of which params must be pruned together, read off the jaxpr of `fn(params, *inputs)`.

    A group without a reason can lose any of its channels: where every slice of a channel is zero (`mask_channels`), it
    adds nothing to what the function returns, and `compact` cuts it out. The walk follows dense layers; plain, strided,
    dilated, transposed, depthwise and grouped convolutions; elementwise operations and broadcasting; normalization by
    stored or batch statistics, over whole norm groups, or over all channels where it is known what zeros add to a sum;
    attention, by whole heads or groups of heads; residual adds, concatenation and equal splits; reshapes, transposes
    and pixel shuffles; reductions, pooling and lookups along other axes; and `jit`, `checkpoint`, custom derivatives,
    `cond`, `scan` and `while`. Everything else pins the axes that it meets and is named as the reason: a softmax over
    the channels themselves, an uneven split, the inputs and outputs of `fn`. docs/structured.md has the list.

    Args:
      fn: the network's forward function in inference mode, returning its outputs only: whatever it returns keeps its
        size, so it must not return losses or updated statistics.
      params: the first argument of `fn`, a pytree of arrays or `jax.ShapeDtypeStruct`: params, or all variables.
      *inputs: the other arguments of `fn`, pytrees of arrays or `jax.ShapeDtypeStruct`; put static arguments into `fn`
        by a closure.

    >>> print(axis_groups(model.apply, variables, images))
    channels  axes that shrink together
           8  batch_stats/norm/{mean,var}[0], params/conv/kernel[3], params/head/kernel[0] x16,
              params/norm/{bias,scale}[0]
       fixed  params/conv/kernel[0], params/conv/kernel[1]: window of a convolution ...
       fixed  params/head/bias[0], params/head/kernel[1]: output of the function
    """
    return group(pin_uses(analyse(fn, params, *inputs, zeros=True, resized=True)))


def pin_uses(analysis: Analysis) -> Analysis:
    """Pin what contributes to a sum, now that zeros are known."""
    for use in analysis.uses:
        if not use.zero.all():
            analysis.classes.pin(use.ids[~use.zero], use.reason)
    return analysis
