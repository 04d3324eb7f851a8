"""Compaction: a channel mask becomes a smaller dense network that computes what the masked one computes."""

import math
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from lotto_jax.pruning import channels, dependency, resizing, structured
from lotto_jax.pruning.masks import Path, path_name


class Compacted(NamedTuple):
    """A compacted network; prints as a table of the groups that shrank and of the channels that could not go.

    Attributes:
      variables: the smaller variables, of the structure that was given.
      mask: the channels of the given network that are left, `{leaf name: bool array}` with the keys and shapes of the
        channel mask. Where nothing stood in the way and nothing was rounded, it is the channel mask.
      kept: `{(leaf name, axis): indices}`, ascending, of every axis that shrank.
      left: `{scale name: {reason: number}}`: masked channels that had to stay, and why.
      groups: `(channels before, channels after, axes)` of each group that shrank.
      shapes: `{leaf name: shape}` of the given variables.
      params: the key of the params in variables ("params"), or "" where the variables are params themselves.
    """

    variables: PyTree
    mask: channels.ChannelMask
    kept: dict[dependency.Leaf, Int[np.ndarray, "kept"]]
    left: dict[str, dict[str, int]]
    groups: tuple[tuple[int, int, str], ...]
    shapes: dict[str, tuple[int, ...]]
    params: str

    def shrink(self, tree: PyTree) -> PyTree:
        """Slice any tree that holds trees of the structure of variables, params or statistics in the same way.

        Such trees are optimizer state, magnitude masks, averaged weights, gradients, a rewind snapshot, a whole train
        state. A leaf belongs to the variable with the longest name whose parts appear in the leaf's name in the same
        order, the last part at its end: `0/mu/dense/kernel` and `dense/0/mu/kernel` belong to `params/dense/kernel`.
        Scalars and leaves that belong to no variable stay as they are. Where `variables` belong to one component, give
        the trees of that component only: another component may have layers of the same names.

        Raises:
          ValueError: if a leaf belongs to a variable of another shape.
        """
        owners = {name: name for name in self.shapes}
        if self.params:  # trees of one collection, such as gradients or batch statistics, lack its key
            owners = {name.partition("/")[2]: name for name in self.shapes} | owners
            owners |= {n.removeprefix(f"{self.params}/"): n for n in self.shapes if n.startswith(f"{self.params}/")}

        def leaf(path: Path, x: Array) -> Array:
            if not np.ndim(x):
                return x
            name = _owner(path_name(path), owners)
            if name is None or not any((name, axis) in self.kept for axis in range(np.ndim(x))):
                return x
            if np.shape(x) != self.shapes[name]:
                raise ValueError(
                    f"The leaf {path_name(path)!r} has shape {np.shape(x)}, but {name!r}, which it belongs "
                    f"to, has {self.shapes[name]}; only trees of the shapes before compaction can be shrunk."
                )
            return _slice(x, {a: self.kept[name, a] for a in range(x.ndim) if (name, a) in self.kept})

        return jax.tree_util.tree_map_with_path(leaf, tree)

    def resized(self, fn: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """`fn` for the smaller variables: it computes what `fn` computes where the removed channels are zero.

        The equations of `fn` run with all its numbers as they are for the larger variables: the count that a mean
        divides by, the scale of attention. Shapes follow from the channels that are left: of reshapes, of norm groups
        and heads, of a convolution's groups. So it needs neither a module of other widths nor a function that reads its
        widths off its params. It may be jitted, differentiated and given inputs of any shape that `fn` takes. Custom
        derivatives and rematerialization within `fn` are lost: it is differentiated as it is written. Traced arrays are
        arguments of `fn`; it must not close over them.

        Args:
          fn: a function of variables first: the one that was compacted, or another one of the same network, as a loss
            with gradients to take.

        Raises:
          ValueError: when it is called, if `fn` needs channels that were removed, or ties them to others, naming them.

        >>> mask = channel_mask(batch_norm_scales(variables["params"]), 0.5)
        >>> small = compact(model.apply, variables, mask, images)
        >>> outputs = jax.jit(small.resized(model.apply))(small.variables, images)
        """

        def run(variables: PyTree, *inputs: PyTree) -> PyTree:
            before = jax.tree_util.tree_map_with_path(
                lambda path, x: jax.ShapeDtypeStruct(self.shapes[path_name(path)], x.dtype), variables
            )
            zeros = {(name, axis): np.ones(self.shapes[name][axis], bool) for name, axis in self.kept}
            for leaf, kept in self.kept.items():
                zeros[leaf][kept] = False
            found = dependency.pin_uses(
                dependency.analyse(fn, before, *inputs, zeros=zeros, resized=True, pin_outputs=False)
            )
            gone: set[int] = set()
            for leaf, kept in self.kept.items():
                roots = np.unique(found.classes.find(np.delete(found.ids[leaf], kept)))
                for reason in filter(None, map(found.classes.reason, roots.tolist())):
                    raise ValueError(
                        f"This function cannot run without channels that were removed from axis {leaf[1]} of "
                        f"{leaf[0]!r}: {reason}; compact it with this function."
                    )
                gone.update(roots.tolist())
            is_gone = np.zeros(len(found.classes), bool)
            is_gone[list(gone)] = True
            sizes = resizing.Sizes(lambda ids: is_gone[found.classes.find(ids)])
            for (name, axis), ids in found.ids.items():
                if (entries := int((~sizes.is_removed(ids)).sum())) != len(self.kept.get((name, axis), ids)):
                    raise ValueError(
                        f"This function ties channels of axis {axis} of {name!r} that were removed to others that are "
                        f"left: it would keep {entries} of {len(ids)}; compact it with this function and a group mask."
                    )
            arguments = jax.tree.leaves((variables, inputs))
            outputs = resizing.evaluate(found.jaxpr.jaxpr, found.jaxpr.consts, found.record, sizes, arguments)
            outputs = [resizing.full(x, value) for x, value in zip(outputs, found.results, strict=True)]
            return jax.tree.unflatten(jax.tree.structure(jax.eval_shape(fn, before, *inputs)), outputs)

        return run

    def __str__(self) -> str:
        lines = ["channels      left  axes that shrank together"]
        lines += [f"{before:8d}  {after:8d}  {axes}" for before, after, axes in self.groups]
        for name, reasons in self.left.items():
            lines += [f"{count} masked channels of {name} stay: {why}" for why, count in reasons.items()]
        return "\n".join(lines)


def _owner(leaf: str, owners: dict[str, str]) -> str | None:
    """The variable that a leaf of another tree belongs to, see `Compacted.shrink`.

    Of variables with equally long names it is the one whose name has the longest end in common with the leaf's name.
    """
    parts = leaf.split("/")
    best, found = (0, 0), None
    for name, owner in owners.items():
        own, rest = name.split("/"), iter(parts)
        if own[-1] == parts[-1] and all(part in rest for part in own):
            end = next((i for i, (a, b) in enumerate(zip(own[::-1], parts[::-1], strict=False)) if a != b), len(own))
            if (len(own), end) > best:
                best, found = (len(own), end), owner
    return found


def _slice(x: Array, kept: dict[int, np.ndarray]) -> Array:
    host = np.asarray(x)  # on the host, where no shape needs a compilation
    for axis, indices in kept.items():
        host = host.take(indices, axis)
    return jnp.asarray(host)


def compact(
    fn: Callable[..., PyTree],
    variables: PyTree,
    channel_mask: channels.ChannelMask,
    *inputs: PyTree,
    round_to: int = 1,
) -> Compacted:
    """Remove the masked channels from params and batch statistics, following the jaxpr of `fn(variables, *inputs)`.

    On the smaller variables the network computes what `fn` computed under `apply_channel_mask(params, result.mask)`.
    Compaction only slices and changes no value: give it masked params to get exactly the masked network. A masked
    channel goes if everything that is added to it is masked too, and if every operation on the way to where the channel
    is summed over keeps 0 at 0 and can be followed; else the channel stays, and `left` says why. See
    `dependency.axis_groups` for what can be followed.

    A function that reads its widths off its params, as the layers of Flax NNX do, runs the smaller variables as it is.
    A Flax Linen module has its widths written in and refuses smaller params: call it within
    `lotto_jax.models.compacted.widths_of_params()`, where its layers are as wide as their kernels (see the example), or
    build it anew with the widths of `result.variables`.

    A jaxpr cannot show a number that `fn` itself computes from the shape of a param, as 1/sqrt(fan-in) scaling does.
    Such a number changes with the shape; multiply it into the params first, or run `result.resized(fn)`, which keeps
    the number.

    Under a group mask the network to compare with is `mask_channels(groups, variables, result.mask)`. Norm groups,
    attention heads and the channels of a layer norm can go too; `fn` has their numbers written in, so run
    `result.resized(fn)`, which runs any function on the smaller variables.

    Runs on the host, outside of `jit`: shapes change.

    Args:
      fn: the network's forward function in inference mode, returning its outputs only.
      variables: the first argument of `fn`: params, or a dict with the params under "params" and the batch statistics
        under another key.
      channel_mask: `{leaf name: bool array}` as `channels.channel_mask` makes it, names relative to the params; or a
        group mask, `{group name: bool array}`, see `structured.channel_scores`.
      *inputs: the other arguments of `fn`, arrays or `jax.ShapeDtypeStruct`.
      round_to: round the number of channels left in a group up to a multiple, 8 or more for what matrix units like; the
        channels of largest |gamma|, or largest group magnitude, come back.

    Raises:
      ValueError: if the mask does not fit, or would remove all channels of a layer.

    >>> mask = channel_mask(batch_norm_scales(variables["params"]), 0.5)
    >>> masked = {**variables, "params": apply_channel_mask(variables["params"], mask)}
    >>> small = compact(model.apply, masked, mask, images)
    >>> print(small)
    channels      left  axes that shrank together
           8         4  batch_stats/norm/{mean,var}[0], params/conv/kernel[3], params/head/kernel[0] x16,
                        params/norm/{bias,scale}[0]
    >>> opt_state = small.shrink(opt_state)

    The module still says 8 channels; within `widths_of_params` it runs with the 4 that are left:

    >>> from lotto_jax.models.compacted import widths_of_params
    >>> with widths_of_params():
    ...     outputs = model.apply(small.variables, images)
    >>> bool(jnp.allclose(outputs, model.apply(masked, images), rtol=1e-5, atol=1e-5))
    True
    """
    leaves = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(variables)}
    prefix = "params/" if any(name.startswith("params/") for name in leaves) else ""
    for name, keep in channel_mask.items():
        structured.check_mask(name, keep)
    masked = {name: ~np.asarray(keep).reshape(-1) for name, keep in channel_mask.items()}
    if any(name.endswith("]") for name in masked):
        found, ids, size = _by_groups(fn, variables, channel_mask, inputs, leaves, round_to > 1)
    else:
        found, ids, size = _by_scales(fn, variables, channel_mask, inputs, leaves, prefix)
    where = dependency.members(found)
    asked = {root for name, own in ids.items() for root in own[masked[name]].tolist()}
    removed = {root for root in asked if not found.classes.reason(root)}
    if round_to > 1:
        removed -= _rounded_back(removed, where, size, round_to)

    gone: dict[dependency.Leaf, list[int]] = {}
    for root in removed:
        for leaf, indices in where[root].items():
            gone.setdefault(leaf, []).extend(indices)
    shrunk: dict[dependency.Leaf, np.ndarray] = {}
    for (name, axis), lost in gone.items():
        entries = leaves[name].shape[axis]
        shrunk[name, axis] = np.setdiff1d(np.arange(entries), lost)
        if not shrunk[name, axis].size:
            raise ValueError(
                f"The channel mask would empty axis {axis} of {name!r} (all {entries} entries); keep at least "
                "one channel in every layer, as channel_mask does."
            )
    mask: channels.ChannelMask = {}
    left: dict[str, dict[str, int]] = {}
    for name, keep in channel_mask.items():
        stays = np.array([root not in removed for root in ids[name].tolist()])
        mask[name] = jnp.asarray(stays.reshape(keep.shape))
        roots = ids[name][stays & masked[name]].tolist()
        reasons = Counter(found.classes.reason(root) or f"rounded to a multiple of {round_to}" for root in roots)
        if reasons:
            left[name] = dict(reasons)
    result = Compacted(
        variables,
        mask,
        shrunk,
        left,
        _table(removed, where),
        {n: np.shape(x) for n, x in leaves.items()},
        prefix[:-1],
    )
    return result._replace(variables=result.shrink(variables))


Masked = tuple[dependency.Analysis, dict[str, np.ndarray], dict[int, float]]
"""A walk, the class of each channel by the keys of the mask, and the size of each class, for rounding."""


def _by_scales(
    fn: Callable[..., PyTree],
    variables: PyTree,
    mask: channels.ChannelMask,
    inputs: tuple,
    leaves: dict[str, Array],
    prefix: str,
) -> Masked:
    """The channels of norms: scale and shift are zero there."""
    kept = channels.masked_leaves(leaves, {prefix + name: keep for name, keep in mask.items()})
    zeros = {(name, int(np.argmax(keep.shape))): ~np.asarray(keep).reshape(-1) for name, keep in kept.items()}
    found = dependency.pin_uses(dependency.analyse(fn, variables, *inputs, zeros=zeros))
    ids, size = {}, dict[int, float]()
    for name in mask:
        # A scale of size 1 has no class, and its channel cannot go.
        axes = [own for (leaf, _), own in found.ids.items() if leaf == prefix + name]
        ids[name] = found.classes.find(axes[0]) if axes else np.full(1, -1)
        gamma = np.abs(np.asarray(leaves[prefix + name])).reshape(-1)
        for root, x in zip(ids[name].tolist(), gamma.tolist(), strict=True):
            size[root] = max(size.get(root, 0.0), x)
    return found, ids, size


def _by_groups(
    fn: Callable[..., PyTree],
    variables: PyTree,
    mask: channels.ChannelMask,
    inputs: tuple,
    leaves: dict[str, Array],
    rounds: bool,
) -> Masked:
    """The channels of groups: all their slices are zero."""
    groups = dependency.axis_groups(fn, variables, *inputs)
    zeros: dict[dependency.Leaf, np.ndarray] = {}
    for group, keep in structured.checked(groups, mask):
        for leaf, indices in group.axes.items():
            flags = zeros.setdefault(leaf, np.zeros(leaves[leaf[0]].shape[leaf[1]], bool))
            flags[indices[~np.asarray(keep)]] = True
    found = dependency.pin_uses(dependency.analyse(fn, variables, *inputs, zeros=zeros, resized=True))
    magnitudes = structured.channel_scores(groups, variables) if rounds else {}
    ids, size = {}, dict[int, float]()
    for name in mask:
        leaf, indices = next(iter(groups.named[name].axes.items()))
        ids[name] = found.classes.find(found.ids[leaf][indices[:, 0]])
        if rounds:
            size.update(zip(ids[name].tolist(), magnitudes[name].tolist(), strict=True))
    return found, ids, size


def _rounded_back(
    removed: set[int], where: dict[int, dict[dependency.Leaf, list[int]]], size: dict[int, float], multiple: int
) -> set[int]:
    """The largest removed channels to take back, so that each group keeps a multiple of channels."""
    total, lost = Counter[tuple](), dict[tuple, list[int]]()
    for root, axes in where.items():
        group = dependency.signature(axes)
        total[group] += 1
        if root in removed:
            lost.setdefault(group, []).append(root)
    back: set[int] = set()
    for group, roots in lost.items():
        remaining = total[group] - len(roots)
        target = min(total[group], math.ceil(remaining / multiple) * multiple)
        back |= set(sorted(roots, key=lambda root: -size[root])[: target - remaining])
    return back


def _table(removed: set[int], where: dict[int, dict[dependency.Leaf, list[int]]]) -> tuple[tuple[int, int, str], ...]:
    before = Counter(dependency.signature(axes) for axes in where.values())
    gone = Counter(dependency.signature(where[root]) for root in removed)
    return tuple((before[group], before[group] - count, dependency.axis_names(group)) for group, count in gone.items())
