"""Runs the jaxpr of a function on arrays from which channels were removed, with the numbers that it had before.

A function whose jaxpr was walked (see `propagation`) has sizes written into it: the shape of a reshape, the number of
norm groups or heads, the count that a mean divides by. Here its equations run one by one; shapes follow from the
channels that are left, and every other number stays what it was for the larger arrays.

Every array has as many entries along an axis of a block as are left, its old size along a fixed axis, and size 1 along
a free axis, whose entries are equal. What is not zero in the removed channels but known (`propagation.Block.carried`)
is computed once for all of them, where a sum needs it.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array

from lotto_jax.pruning.propagation import CALLS, ELEMENTWISE, IDENTITIES, Block, Record, Value, constant

Shape = tuple[int, ...]


class Sizes:
    """How large the arrays are that abstract values stand for.

    Args:
      is_removed: for an array of ids, which of them were removed.
    """

    def __init__(self, is_removed: Callable[[np.ndarray], np.ndarray]) -> None:
        self.is_removed = is_removed

    def of(self, value: Value) -> Shape:
        """The shape of an array; free axes have size 1."""
        shape = [n if a in value.fixed else 1 for a, n in enumerate(value.shape)]
        for block in value.blocks:
            stays = ~self.is_removed(block.ids)
            for i, axis in enumerate(block.axes):
                shape[axis] = int(stays.any(tuple(j for j in range(stays.ndim) if j != i)).sum())
            if stays.sum() != math.prod(shape[a] for a in block.axes):
                raise ValueError(
                    f"The channels that are left of an array of shape {value.shape} are no array any more; remove "
                    "only channels that axis_groups lists."
                )
        return tuple(shape)

    def fit(self, x: Array, value: Value) -> Array:
        """`x` of the shape of `value`: equal entries are repeated, or all but one left out."""
        return resize(x, self.of(value))


def resize(x: Array, shape: Shape) -> Array:
    """Repeat entries along axes of size 1, or keep the first along axes of equal entries."""
    if x.shape == shape:
        return x
    x = x[tuple(slice(0, 1) if n == 1 else slice(None) for n in shape)]
    return jnp.broadcast_to(x, shape)


Carried = dict[tuple[int, ...], Callable[[], Array]]
"""For the axes of a block, what an array is in the removed channels: an array of size 1 along these axes."""


class Sized(NamedTuple):
    """An array of the size that is left, its abstract value, and what it is in the removed channels."""

    array: Array
    value: Value
    carried: Carried


class Equation(NamedTuple):
    """An equation and its operands.

    Attributes:
      eqn: the equation of the jaxpr.
      inputs: the operands.
      results: the abstract values of the results.
      called: the records of the jaxprs that the equation calls.
      sizes: what is left.
    """

    eqn: core.JaxprEqn
    inputs: list[Sized]
    results: list[Value]
    called: list[Record]
    sizes: Sizes

    @property
    def ins(self) -> list[Array]:
        """The arrays of the operands."""
        return [x.array for x in self.inputs]

    @property
    def operands(self) -> list[Value]:
        """The abstract values of the operands."""
        return [x.value for x in self.inputs]

    def full(self, i: int, axes: Iterable[int] | None = None) -> Array:
        """Operand i with its free axes (of the given ones) repeated to their old size."""
        return full(self.ins[i], self.operands[i], axes)

    def bind(self, ins: Sequence[Array], **changes: Any) -> Sequence[Array]:
        """The primitive on other operands, with some of its parameters changed."""
        results = self.eqn.primitive.bind(*ins, **{**self.eqn.params, **changes})
        return results if self.eqn.primitive.multiple_results else [results]

    def run(self, inner: core.Jaxpr | core.ClosedJaxpr, record: Record, arguments: Sequence[Array]) -> list[Array]:
        """The outputs of a jaxpr that the equation calls."""
        return evaluate(*_opened(inner), record, self.sizes, arguments)

    def removed(self, i: int, block: Block) -> Array:
        """What operand i is in the removed channels of one of its blocks."""
        if block.zero[self.sizes.is_removed(block.ids)].all():
            shape = [1 if a in block.axes else n for a, n in enumerate(self.ins[i].shape)]
            return jnp.zeros(shape, self.ins[i].dtype)
        return self.inputs[i].carried[block.axes]()


def _free(value: Value) -> set[int]:
    return set(range(len(value.shape))) - value.fixed - {a for b in value.blocks for a in b.axes}


def full(x: Array, value: Value, axes: Iterable[int] | None = None) -> Array:
    """`x` with its free axes (of the given ones) repeated to their old size."""
    within = _free(value) if axes is None else _free(value) & set(axes)
    return resize(x, tuple(value.shape[a] if a in within else n for a, n in enumerate(x.shape)))


def evaluate(
    jaxpr: core.Jaxpr, consts: Sequence[Any], record: Record, sizes: Sizes, arguments: Sequence[Array]
) -> list[Array]:
    """The outputs of `jaxpr` on arguments of the sizes that are left."""
    sized = [Sized(x, value, {}) for x, value in zip(arguments, record.arguments, strict=True)]
    return [output.array for output in _evaluate(jaxpr, consts, record, sizes, sized)]


def _evaluate(
    jaxpr: core.Jaxpr, consts: Sequence[Any], record: Record, sizes: Sizes, arguments: Sequence[Sized]
) -> list[Sized]:
    env: dict[core.Var, Sized] = {}
    for var, given, value in zip(jaxpr.invars, arguments, record.arguments, strict=True):
        env[var] = Sized(sizes.fit(given.array, value), value, given.carried)
    for var, x in zip(jaxpr.constvars, consts, strict=True):
        env[var] = Sized(jnp.asarray(x), constant(x), {})

    def read(atom: core.Var | core.Literal) -> Sized:
        return Sized(jnp.asarray(atom.val), constant(atom.val), {}) if isinstance(atom, core.Literal) else env[atom]

    for eqn, (values, called) in zip(jaxpr.eqns, record.equations, strict=True):
        operands = [read(v) for v in eqn.invars]
        name = eqn.primitive.name
        carried: list[Carried] = [{} for _ in values]
        with jax.named_scope(str(eqn.source_info.name_stack)):
            if name in CALLS:
                inner = next(eqn.params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in eqn.params)
                sized = _evaluate(*_opened(inner), called[0], sizes, operands)
                outputs: Sequence[Array] = [x.array for x in sized]
                carried = [x.carried for x in sized]
            else:
                equation = Equation(eqn, operands, values, called, sizes)
                outputs = STEPS.get(name, _whole)(equation)
                if name in ELEMENTWISE:
                    carried = [{b.axes: _later(_carried, equation, b) for b in values[0].blocks}]
                elif name in IDENTITIES:
                    carried = [x.carried for x in operands]
        for var, x, value, own in zip(eqn.outvars, outputs, values, carried, strict=True):
            env[var] = Sized(sizes.fit(x, value), value, own)
    return [read(v) for v in jaxpr.outvars]


def _opened(jaxpr: core.Jaxpr | core.ClosedJaxpr) -> tuple[core.Jaxpr, Sequence[Any]]:
    return (jaxpr.jaxpr, jaxpr.consts) if isinstance(jaxpr, core.ClosedJaxpr) else (jaxpr, ())


def _later(function: Callable[..., Array], *arguments: Any) -> Callable[[], Array]:
    """The function of the arguments, called once, when it is needed first."""
    return functools.cache(functools.partial(function, *arguments))


def _carried(e: Equation, block: Block) -> Array:
    """What an elementwise operation yields in the removed channels of a block of its result."""
    ins = []
    for i, (x, value) in enumerate(zip(e.ins, e.operands, strict=True)):
        own = [b for b in value.blocks if set(b.axes) & set(block.axes)]
        ins.append(e.removed(i, own[0]) if own else x)
    shape = jnp.broadcast_shapes(*(x.shape for x in ins))
    return e.bind([resize(x, shape) if v.shape else x for x, v in zip(ins, e.operands, strict=True)])[0]


Step = Callable[[Equation], Sequence[Array]]
STEPS: dict[str, Step] = {}


def _step(*names: str) -> Callable[[Step], Step]:
    def register(step: Step) -> Step:
        STEPS.update(dict.fromkeys(names, step))
        return step

    return register


def _whole(e: Equation) -> Sequence[Array]:
    """A primitive whose arrays keep their sizes."""
    return e.bind([e.full(i) for i in range(len(e.ins))])


@_step("cond")
def _cond(e: Equation) -> Sequence[Array]:
    def branch(inner: core.ClosedJaxpr, record: Record) -> Callable[..., list[Array]]:
        return lambda *xs: list(map(e.sizes.fit, e.run(inner, record, xs), e.results))

    branches = [branch(inner, record) for inner, record in zip(e.eqn.params["branches"], e.called, strict=True)]
    return jax.lax.switch(e.ins[0], branches, *e.ins[1:])


@_step("scan")
def _scan(e: Equation) -> Sequence[Array]:
    p = e.eqn.params
    first, second = p["num_consts"], p["num_consts"] + p["num_carry"]
    states = e.called[0].arguments[first:second]

    def body(carry: list[Array], xs: list[Array]) -> tuple[list[Array], list[Array]]:
        outputs = e.run(p["jaxpr"], e.called[0], [*e.ins[:first], *carry, *xs])
        return list(map(e.sizes.fit, outputs[: len(carry)], states)), outputs[len(carry) :]

    carry = list(map(e.sizes.fit, e.ins[first:second], states))
    xs = [e.full(i, [0]) for i in range(second, len(e.ins))]
    carry, stacked = jax.lax.scan(body, carry, xs, p["length"], reverse=p["reverse"], unroll=p["unroll"])
    return [*carry, *stacked]


@_step("while")
def _while(e: Equation) -> Sequence[Array]:
    p = e.eqn.params
    first, second = p["cond_nconsts"], p["cond_nconsts"] + p["body_nconsts"]

    def go_on(carry: list[Array]) -> Array:
        return e.run(p["cond_jaxpr"], e.called[0], [*e.ins[:first], *carry])[0]

    def body(carry: list[Array]) -> list[Array]:
        outputs = e.run(p["body_jaxpr"], e.called[1], [*e.ins[first:second], *carry])
        return list(map(e.sizes.fit, outputs, e.results))

    return jax.lax.while_loop(go_on, body, list(map(e.sizes.fit, e.ins[second:], e.results)))


@_step(*ELEMENTWISE)
def _elementwise(e: Equation) -> Sequence[Array]:
    shape = jnp.broadcast_shapes(*(x.shape for x in e.ins))
    return e.bind([resize(x, shape) if value.shape else x for x, value in zip(e.ins, e.operands, strict=True)])


@_step(*IDENTITIES)
def _identity(e: Equation) -> Sequence[Array]:
    return e.ins


@_step("transpose")
def _transpose(e: Equation) -> Sequence[Array]:
    return e.bind(e.ins)


@_step("broadcast_in_dim")
def _broadcast(e: Equation) -> Sequence[Array]:
    return [jax.lax.broadcast_in_dim(e.ins[0], e.sizes.of(e.results[0]), e.eqn.params["broadcast_dimensions"])]


@_step("reshape", "squeeze", "expand_dims")
def _reshape(e: Equation) -> Sequence[Array]:
    (value,) = e.results
    free, left = _free(value), e.sizes.of(value)
    return [jax.lax.reshape(e.full(0), [value.shape[a] if a in free else n for a, n in enumerate(left)])]


@_step("reduce_sum")
def _sum(e: Equation) -> Sequence[Array]:
    """The removed channels add what they are: nothing, or what is carried, once for each."""
    axes = e.eqn.params["axes"]
    (total,) = e.bind([e.full(0, axes)])
    for block in e.operands[0].blocks:
        gone = e.sizes.is_removed(block.ids)
        if set(block.axes) <= set(axes) and not block.zero[gone].all():
            one = full(e.removed(0, block), e.operands[0], axes)
            total = total + int(gone.sum()) * e.bind([one])[0]
    return [total]


@_step("reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "argmax", "argmin")
def _reduce(e: Equation) -> Sequence[Array]:
    return e.bind([e.full(0, e.eqn.params["axes"])])


@_step(
    *("slice", "dynamic_slice", "pad", "rev", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"),
    *("reduce_window_sum", "reduce_window_max", "reduce_window_min"),
)
def _along_fixed_axes(e: Equation) -> Sequence[Array]:
    """Cuts or mixes along axes of fixed size; the others are whole, whatever their size."""
    fixed = e.results[0].fixed
    x, changes = e.full(0, fixed), {}
    for name in ("limit_indices", "slice_sizes"):
        if name in e.eqn.params:
            changes[name] = tuple(n if a in fixed else x.shape[a] for a, n in enumerate(e.eqn.params[name]))
    return e.bind([x, *e.ins[1:]], **changes)


@_step("tile")
def _tile(e: Equation) -> Sequence[Array]:
    tiled = [a for a, n in enumerate(e.eqn.params["reps"]) if n != 1]
    return e.bind([e.full(0, tiled)])


@_step("dynamic_update_slice")
def _dynamic_update_slice(e: Equation) -> Sequence[Array]:
    array, update = e.ins[:2]
    shape, part = e.sizes.of(e.results[0]), e.operands[1].shape
    # An axis that is free in the result is free in both, and so constant: its first entry stands for all.
    sizes = [shape[a] if n == e.operands[0].shape[a] else n for a, n in enumerate(part)]
    return e.bind([resize(array, shape), resize(update, tuple(sizes)), *e.ins[2:]])


@_step("gather")
def _gather(e: Equation) -> Sequence[Array]:
    before, taken = e.operands[0].shape, e.eqn.params["slice_sizes"]
    operand = e.full(0, [a for a, n in enumerate(taken) if n != before[a]])
    left = tuple(operand.shape[a] if n == before[a] else n for a, n in enumerate(taken))
    return e.bind([operand, e.full(1)], slice_sizes=left)


@_step("concatenate")
def _concatenate(e: Equation) -> Sequence[Array]:
    dim, shape = e.eqn.params["dimension"], e.sizes.of(e.results[0])
    whole = [e.full(i, [dim]) for i in range(len(e.ins))]
    return e.bind([resize(x, (*shape[:dim], x.shape[dim], *shape[dim + 1 :])) for x in whole])


@_step("split")
def _split(e: Equation) -> Sequence[Array]:
    axis, before = e.eqn.params["axis"], e.eqn.params["sizes"]
    x = e.full(0, [axis])
    return e.bind([x], sizes=tuple(int(x.shape[axis] * n // sum(before)) for n in before))


def _match(e: Equation, x: Array, y: Array, a: int, b: int, times: int = 1) -> tuple[Array, Array]:
    """Operands whose axes a and b meet, the first being `times` as long; a free one takes the size of the other."""
    of_x, of_y = a in _free(e.operands[0]), b in _free(e.operands[1])
    size = y.shape[b] if not of_y else x.shape[a] // times if not of_x else e.operands[1].shape[b]
    return (
        resize(x, (*x.shape[:a], size * times, *x.shape[a + 1 :])),
        resize(y, (*y.shape[:b], size, *y.shape[b + 1 :])),
    )


@_step("dot_general")
def _dot(e: Equation) -> Sequence[Array]:
    x, y = e.ins
    for left, right in e.eqn.params["dimension_numbers"]:
        for a, b in zip(left, right, strict=True):
            x, y = _match(e, x, y, a, b)
    return e.bind([x, y])


@_step("conv_general_dilated")
def _conv(e: Equation) -> Sequence[Array]:
    numbers, groups = e.eqn.params["dimension_numbers"], e.eqn.params["feature_group_count"]
    (_, feature, *space), (make, take, *window) = numbers.lhs_spec, numbers.rhs_spec
    lhs, rhs = e.full(0, space), e.full(1, [make, *window])
    if e.operands[1].shape[take] == 1 and groups > 1:  # depthwise: a group for each channel that is left
        lhs = e.full(0, [*space, feature])
        return e.bind([lhs, rhs], feature_group_count=lhs.shape[feature])
    return e.bind(_match(e, lhs, rhs, feature, take, groups))
