"""Abstract interpretation of a jaxpr: which indices of which axes must be removed together, and which slices are zero.

Removing channel c of a layer means removing index c from the axis that makes it, from every array that it flows
through, and from the axis that consumes it. The walk gives every index of every axis of every param an id and unifies
ids as the equations of the jaxpr demand: an addition unifies the channels of its operands (a residual), a convolution
unifies its input's channels with the input axis of its kernel, a flatten makes 4x4 strided rows share the id of one
channel. What is left are classes of indices that can only be removed together. (The idea comes from DepGraph, Fang et
al., CVPR 2023; here it works on single indices.) An axis that meets an operation which is not understood, or whose size
is fixed from outside (inputs, outputs, constants), is pinned with the reason, never guessed.

The abstract value of an array partitions its axes into three kinds:
  block: one axis, or several that one axis was split into by a reshape, with an array of ids over them;
  fixed: the axis has a size that no pruning changes;
  free:  neither; the axis comes from broadcasting (or has size 1) and fits whatever it meets.
Each id has a flag: whether the slice of the array at that index is known to be zero. Zeros start at the masked scales
and shifts, and tell which channels contribute nothing where they are summed over. A second flag says whether the slice
is at least known from the other indices: what elementwise operations make of zeros and of what all channels share. In a
layer norm a channel x that is zero has the deviation -mean, and `resizing` adds its square to the variance.
"""

import functools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Bool, Int

Ids = Int[np.ndarray, "..."]
Flags = Bool[np.ndarray, "..."]

# Primitives that work entry by entry, and those that call a jaxpr.
# fmt: off
ELEMENTWISE = (
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt",
    "ceil", "clamp", "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "eq",
    "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "imag", "integer_pow",
    "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg",
    "nextafter", "not", "or", "pow", "real", "reduce_precision", "rem", "round", "rsqrt", "select_n",
    "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt",
    "square", "stop_gradient", "sub", "tan", "tanh", "xor",
)
CALLS = (
    "jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint",
    "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
)
IDENTITIES = ("optimization_barrier", "sharding_constraint", "device_put", "name", "pvary")
# fmt: on
KEEP_KNOWN = {*ELEMENTWISE, *CALLS, *IDENTITIES}  # what `resizing` can follow known slices through


class Classes:
    """Union-find over ids, with a reason for each class that must not be removed.

    The representative of a class is its smallest id. All steps are NumPy's: a network has a hundred thousand ids.
    """

    def __init__(self) -> None:
        self._size = 0
        self._parent = np.zeros(1024, np.int64)  # with room for more ids
        self._code = np.zeros(1024, np.int64)  # of the reason of a representative
        self._reasons = [""]

    def __len__(self) -> int:
        return self._size

    def new(self, count: int) -> Ids:
        """`count` fresh ids, each a class of its own."""
        start, self._size = self._size, self._size + count
        if self._size > self._parent.size:
            self._parent, self._code = (np.resize(x, 2 * self._size) for x in (self._parent, self._code))
        ids = np.arange(start, self._size)
        self._parent[start : self._size], self._code[start : self._size] = ids, 0
        return ids

    def find(self, ids: Ids) -> Ids:
        """The representative of each id's class."""
        roots, steps = self._parent[ids], 0
        while ((above := self._parent[roots]) != roots).any():
            roots, steps = above, steps + 1
        if steps:
            self._parent[ids] = roots
        return roots

    def unify(self, a: Ids, b: Ids) -> None:
        """Put a[i] and b[i] into one class, for each i (arrays of one shape)."""
        if a is b:
            return
        a, b = self.find(a).ravel(), self.find(b).ravel()
        while (differ := a != b).any():
            low, high = np.minimum(a, b)[differ], np.maximum(a, b)[differ]
            np.minimum.at(self._parent, high, low)  # of several that one is tied to, the others follow in another round
            codes = self._code[high]
            if codes.any():
                pinned = codes > 0
                self._pin(self.find(high[pinned]), codes[pinned])
            if (high[1:] > high[:-1]).all():  # each is tied to one
                return
            a, b = self.find(low), self.find(high)

    def pin(self, ids: Ids, reason: str) -> None:
        """Forbid removing these ids; the first reason is kept."""
        roots = self.find(ids).ravel()
        self._reasons.append(reason)
        self._pin(roots, np.full(roots.shape, len(self._reasons) - 1))

    def _pin(self, roots: Ids, codes: Int[np.ndarray, "..."]) -> None:
        free = self._code[roots] == 0
        self._code[roots[free][::-1]] = codes[free][::-1]  # the last assignment stays, which is the first reason

    def pinned(self, ids: Ids) -> Flags:
        """Which of these ids must stay."""
        return self._code[self.find(ids)] > 0

    def reason(self, root: int) -> str:
        """Why the class of a representative must stay, or ""."""
        return self._reasons[self._code[root]]

    def reasons(self, roots: Ids) -> tuple[list[str], Int[np.ndarray, "..."]]:
        """Why classes must stay, or "": the different reasons, and the number of the one of each representative."""
        codes, inverse = np.unique(self._code[roots], return_inverse=True)
        numbers: dict[str, int] = {}
        named = [numbers.setdefault(self._reasons[code], len(numbers)) for code in codes.tolist()]
        return list(numbers), np.array(named, np.int64)[inverse]


def every(flags: Sequence[Flags]) -> Flags:
    """Where all of the flags hold; a third of the time of `np.logical_and.reduce`, which stacks them first."""
    return functools.reduce(operator.and_, flags)


def some(flags: Sequence[Flags]) -> Flags:
    """Where one of the flags holds."""
    return functools.reduce(operator.or_, flags)


class Block(NamedTuple):
    """Ids and flags over some axes (ascending) of an array; all have the shape of these axes.

    Attributes:
      axes: of the array.
      ids: of their indices.
      zero: where the slice is zero.
      carried: where it is known without this index, and the same for all indices that are so; None is where it is zero.
    """

    axes: tuple[int, ...]
    ids: Ids
    zero: Flags
    carried: Flags | None = None

    @property
    def known(self) -> Flags:
        """Where the slice is zero or carried."""
        return self.zero if self.carried is None else self.zero | self.carried


def sorted_block(axes: Sequence[int], ids: Ids, zero: Flags, carried: Flags | None = None) -> Block:
    """A block whose axes are given in any order."""
    if len(axes) == 1:
        return Block((int(axes[0]),), ids, zero, carried)
    order = np.argsort(axes)
    carried = None if carried is None else carried.transpose(order)
    return Block(tuple(int(axes[i]) for i in order), ids.transpose(order), zero.transpose(order), carried)


class Value(NamedTuple):
    """The abstract value of an array.

    Attributes:
      shape: of the array.
      blocks: disjoint in their axes.
      fixed: axes of a size that no pruning changes. An axis in neither is free.
      const: the value of all entries, where it is known.
    """

    shape: tuple[int, ...]
    blocks: tuple[Block, ...] = ()
    fixed: frozenset[int] = frozenset()
    const: float | None = None


def without_carried(values: Iterable[Value]) -> list[Value]:
    """The values, but slices that are not zero count as unknown."""
    return [v._replace(blocks=tuple(b._replace(carried=None) for b in v.blocks)) for v in values]


def longer(axes: Iterable[int], shape: tuple[int, ...]) -> frozenset[int]:
    """Those of the axes that are longer than 1, or of a symbolic size (`jax.export.symbolic_shape`)."""
    return frozenset(a for a in axes if not isinstance(shape[a], int) or shape[a] > 1)


def fixed_value(shape: tuple[int, ...]) -> Value:
    """An array whose axes all have a size that no pruning changes: an input, a constant."""
    return Value(shape, fixed=longer({*range(len(shape))}, shape))


class Shared(NamedTuple):
    """Positions that several aligned arrays share as one block, with the flags of each array there."""

    positions: tuple[int, ...]
    ids: Ids
    zeros: list[Flags]
    known: list[Flags]


class Use(NamedTuple):
    """A contraction: an index may be removed there only if it contributes nothing, which `zero` says."""

    ids: Ids
    zero: Flags
    reason: str


class Record(NamedTuple):
    """What a walk saw in a jaxpr: abstract values, and the records of the jaxprs that its equations call.

    Attributes:
      arguments: of the jaxpr.
      equations: `(results, records of the called jaxprs)` of each equation.
    """

    arguments: list[Value]
    equations: list[tuple[list[Value], list["Record"]]]


class Walk:
    """Walks a jaxpr and collects classes, uses, and `splits`: the ids of blocks of several axes.

    Args:
      rules: what each primitive does, by its name, and "" for all others; see `rules.RULES`.
      resized: whether the jaxpr itself will run at the smaller sizes (`resizing.evaluate`), with the numbers that it
        has now. Then parts of a split axis may go as a whole (norm groups, attention heads), although their number or
        size is written into the function, and channels that are zero may leave a sum whose count stays.
    """

    def __init__(self, rules: Mapping[str, "Rule"], resized: bool = False) -> None:
        self.rules = rules
        self.resized = resized
        self.called: list[Record] = []  # by the equation that is being walked
        self.scope = ""  # of the call whose jaxpr is being walked
        self.classes = Classes()
        self.uses: list[Use] = []
        self.splits: list[tuple[Ids, str]] = []

    def run(self, jaxpr: core.Jaxpr, consts: Sequence[Any], arguments: Sequence[Value]) -> list[Value]:
        """Abstract values of the outputs of `jaxpr`."""
        env: dict[core.Var, Value] = dict(zip(jaxpr.invars, arguments, strict=True))
        env.update({v: constant(c) for v, c in zip(jaxpr.constvars, consts, strict=True)})

        def read(atom: core.Var | core.Literal) -> Value:
            return constant(atom.val) if isinstance(atom, core.Literal) else env[atom]

        record, outer = Record(list(arguments), []), self.called
        for eqn in jaxpr.eqns:
            rule, self.called = self.rules.get(eqn.primitive.name, self.rules[""]), []
            results = rule(self, eqn, [read(v) for v in eqn.invars])
            if eqn.primitive.name not in KEEP_KNOWN:
                results = without_carried(results)
            record.equations.append((results, self.called))
            env.update(zip(eqn.outvars, results, strict=True))
        self.called = [*outer, record]
        return [read(v) for v in jaxpr.outvars]

    def call(self, eqn: core.JaxprEqn, inner: core.Jaxpr | core.ClosedJaxpr, arguments: Sequence[Value]) -> list[Value]:
        """Abstract values of the outputs of the jaxpr that an equation calls."""
        outer, self.scope = self.scope, self._scope(eqn)
        jaxpr, consts = (inner.jaxpr, inner.consts) if isinstance(inner, core.ClosedJaxpr) else (inner, ())
        known = eqn.primitive.name in KEEP_KNOWN
        outputs = self.run(jaxpr, consts, arguments if known else without_carried(arguments))
        self.scope = outer
        return outputs

    def _scope(self, eqn: core.JaxprEqn) -> str:
        return "/".join(filter(None, (self.scope, str(eqn.source_info.name_stack))))

    def where(self, eqn: core.JaxprEqn) -> str:
        """`conv_general_dilated (Generator/Conv_0)`: an equation, for messages."""
        scope = self._scope(eqn)
        return f"{eqn.primitive.name} ({scope})" if scope else eqn.primitive.name

    def collapse(self, value: Value, axes: Iterable[int], why: str, strict: bool = False) -> Value:
        """Make `axes` fixed: a block inside them is pinned, a block that sticks out becomes uniform along them.

        With `strict` a block that sticks out is pinned too, unless it is uniform there already. Strict is for
        operations whose result depends on the size of the parts (a group norm's mean, a dot product of attention
        heads), in a function that computes this size itself.
        """
        strict = strict and not self.resized
        axes, blocks, fixed = set(axes), [], set(value.fixed)
        if not any(axes.intersection(block.axes) for block in value.blocks):
            return value
        for block in value.blocks:
            inside = [i for i, a in enumerate(block.axes) if a in axes]
            if len(inside) == len(block.axes):
                self.classes.pin(block.ids, why)
            elif inside:
                first = block.ids
                for i in inside:
                    first = first.take([0], axis=i)
                if strict and not (self.classes.find(block.ids) == self.classes.find(first)).all():
                    self.classes.pin(block.ids, f"part of a split axis, {why}")
                    fixed |= set(block.axes)
                    continue
                self.classes.unify(block.ids, np.broadcast_to(first, block.ids.shape))
                rest = tuple(a for a in block.axes if a not in axes)
                blocks.append(Block(rest, first.squeeze(tuple(inside)), np.all(block.zero, tuple(inside))))
            else:
                blocks.append(block)
            fixed |= axes & set(block.axes)
        return Value(value.shape, tuple(blocks), frozenset(fixed), value.const)

    def separate(self, value: Value, axes: Iterable[int], why: str, strict: bool = False) -> Value:
        """Collapse the outside axes of blocks that lie partly in `axes`, so that none does any more."""
        if all(len(b.axes) == 1 for b in value.blocks):
            return value
        inside = set(axes)
        across = [b for b in value.blocks if 0 < len(inside & set(b.axes)) < len(b.axes)]
        return self.collapse(value, {a for b in across for a in b.axes} - inside, why, strict)

    def whole(self, value: Value, axes: Iterable[int]) -> Value:
        """Where the jaxpr will be resized, keep the parts whole that blocks have along `axes`: whole heads go then."""
        inside = set(axes)
        across = [b for b in value.blocks if 0 < len(inside & set(b.axes)) < len(b.axes)]
        if not self.resized or not across:
            return value
        return self.collapse(value, {a for b in across for a in b.axes} & inside, "")

    def carry(
        self,
        value: Value,
        mapping: Mapping[int, int],
        shape: tuple[int, ...],
        why: str,
        rest: str = "fixed",
        keeps_zero: bool = True,
        strict: bool = False,
    ) -> Value:
        """An array of `shape` whose axis mapping[a] is axis a of `value`; unmapped input axes must not shrink.

        Output axes that nothing maps to are `rest`: "fixed" or "free". `keeps_zero` says whether slices of zeros stay
        zero.
        """
        value = self.collapse(value, set(range(len(value.shape))) - set(mapping), why, strict)
        blocks = tuple(sorted_block([mapping[a] for a in b.axes], b.ids, b.zero & keeps_zero) for b in value.blocks)
        fixed = {mapping[a] for a in value.fixed if a in mapping}
        if rest == "fixed":
            fixed |= set(range(len(shape))) - set(mapping.values())
        return Value(shape, blocks, longer(fixed, shape))

    def without_uniform(self, value: Value) -> Value:
        """`value` with the axes fixed along which blocks of several axes have become uniform."""
        axes: set[int] = set()
        for block in value.blocks:
            if len(block.axes) > 1:
                roots = self.classes.find(block.ids)
                uniform = {a for i, a in enumerate(block.axes) if (roots == roots.take([0], axis=i)).all()}
                axes |= uniform if len(uniform) < len(block.axes) else set()
        return self.collapse(value, axes, "") if axes else value

    def align(
        self, values: Sequence[Value], axes: Sequence[Sequence[int]] | None, why: str
    ) -> tuple[list[Shared], set[int], list[Value]]:
        """Unify arrays along corresponding axes: axis axes[i][p] of values[i] lies at position p; None: all axes.

        Returns:
          The shared blocks over positions, the fixed positions, and the values, in which now no block sticks out of
          `axes`.
        """
        values = [self.without_uniform(v) for v in values] if self.resized else list(values)
        if (matching := _matching(values, axes)) is not None:  # nearly always; what follows is slow
            together, fixed = matching
            return [self._shared(key, together[key], values) for key in sorted(together)], fixed, values
        axes = [range(len(v.shape)) for v in values] if axes is None else axes
        size = [max(v.shape[a] for v, a in zip(values, at, strict=True)) for at in zip(*axes, strict=True)]
        values = [self.separate(v, a, why) for v, a in zip(values, axes, strict=True)]
        fixed = {p for v, a in zip(values, axes, strict=True) for p, x in enumerate(a) if x in v.fixed}
        if fixed:
            reason = f"fixed size in {why}"
            values = [self.collapse(v, [a[p] for p in fixed], reason) for v, a in zip(values, axes, strict=True)]
        # Blocks in terms of positions, and the sets of positions that blocks tie together.
        local = [
            [
                sorted_block([list(a).index(x) for x in b.axes], b.ids, b.zero, b.known)
                for b in v.blocks
                if b.axes[0] in a
            ]
            for v, a in zip(values, axes, strict=True)
        ]
        ties: list[set[int]] = []
        for block in (b for blocks in local for b in blocks):
            touching = [t for t in ties if t & set(block.axes)]
            ties = [t for t in ties if t not in touching] + [set(block.axes).union(*touching)]
        shared = []
        for tie in sorted(ties, key=min):
            positions = tuple(sorted(tie))
            shape = tuple(size[p] for p in positions)
            blocks = [[b for b in own if b.axes[0] in tie] for own in local]
            if any(len(own) > 1 for own in blocks):
                for block in (b for own in blocks for b in own):
                    self.classes.pin(block.ids, f"axes split differently before {why}")
                fixed |= tie
                continue
            pieces = [own[0] if own else None for own in blocks]
            ids = [spread(b.ids, b.axes, positions, shape) for b in pieces if b is not None]
            for other in ids[1:]:
                self.classes.unify(ids[0], other)
            zeros = [
                np.full(shape, v.const == 0) if b is None else spread(b.zero, b.axes, positions, shape)
                for v, b in zip(values, pieces, strict=True)
            ]
            known = [np.ones(shape, bool) if b is None else spread(b.known, b.axes, positions, shape) for b in pieces]
            shared.append(Shared(positions, ids[0], zeros, known))
        return shared, fixed, values

    def _shared(self, positions: tuple[int, ...], own: Sequence[Block | None], values: Sequence[Value]) -> Shared:
        """Unify the blocks of values that lie at the same positions; None stands for a free axis."""
        first, *others = (b for b in own if b is not None)
        for block in others:
            self.classes.unify(first.ids, block.ids)
        shape = first.ids.shape
        zeros = [np.full(shape, v.const == 0) if b is None else b.zero for v, b in zip(values, own, strict=True)]
        return Shared(positions, first.ids, zeros, [np.ones(shape, bool) if b is None else b.known for b in own])


def _matching(
    values: Sequence[Value], axes: Sequence[Sequence[int]] | None
) -> tuple[dict[tuple[int, ...], list[Block | None]], set[int]] | None:
    """The blocks of each value by their positions, and the fixed positions, if no block must be cut or spread.

    That is, if the positions of any two blocks are the same or disjoint, and none meets a fixed one; None otherwise.
    """
    found: dict[tuple[int, ...], list[Block | None]] = {}
    fixed: set[int] = set()
    for i, value in enumerate(values):
        place = None if axes is None else {a: p for p, a in enumerate(axes[i])}
        for block in value.blocks:
            key = block.axes if place is None else tuple(place[a] for a in block.axes if a in place)
            if len(key) == len(block.axes) and (len(key) == 1 or list(key) == sorted(key)):
                found.setdefault(key, [None] * len(values))[i] = block
            elif key:
                return None
        fixed |= value.fixed if place is None else {place[a] for a in value.fixed if a in place}
    taken = [p for key in found for p in key]
    return (found, fixed) if len({*taken}) == len(taken) and fixed.isdisjoint(taken) else None


def spread(array: np.ndarray, axes: tuple[int, ...], positions: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    """Broadcast an array over `axes` to all `positions` of `shape`."""
    if array.shape == shape:
        return array
    return np.broadcast_to(array.reshape([n if p in axes else 1 for p, n in zip(positions, shape, strict=True)]), shape)


def constant(value: Any) -> Value:
    """The abstract value of a literal or a captured array."""
    shape = np.shape(value)
    if math.prod(shape) == 1 and jnp.issubdtype(getattr(value, "dtype", None) or np.asarray(value).dtype, np.number):
        return Value(shape, const=float(np.real(np.asarray(value)).reshape(())))
    return fixed_value(shape)


Rule = Callable[[Walk, core.JaxprEqn, list[Value]], list[Value]]
