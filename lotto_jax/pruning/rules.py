"""What each primitive of a jaxpr does to abstract values (see `propagation`), as a table of rules by its name.

A rule takes the walk, the equation and the abstract values of the operands, and returns the abstract values of the
results. It unifies or pins the ids that the equation ties together or fixes; a primitive without a rule pins all ids
that it meets.
"""

import functools
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from lotto_jax.pruning.propagation import (
    CALLS,
    ELEMENTWISE,
    IDENTITIES,
    Block,
    Flags,
    Rule,
    Use,
    Value,
    Walk,
    every,
    fixed_value,
    longer,
    some,
    sorted_block,
    spread,
)


def _shape(eqn: core.JaxprEqn, output: int = 0) -> tuple[int, ...]:
    return tuple(eqn.outvars[output].aval.shape)  # type: ignore[attr-defined]


RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


@_rule("")
def _not_understood(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    for value in ins:
        walk.collapse(value, range(len(value.shape)), f"cannot follow {walk.where(eqn)}")
    return [fixed_value(_shape(eqn, i)) for i in range(len(eqn.outvars))]


@_rule(*CALLS)
def _call(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    inner = next(eqn.params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in eqn.params)
    return walk.call(eqn, inner, ins)


def _join(walk: Walk, values: Sequence[Value], why: str) -> Value:
    """What holds for each of several arrays of one shape, of which one is taken."""
    shared, fixed, _ = walk.align(values, None, why)
    blocks = tuple(Block(s.positions, s.ids, every(s.zeros)) for s in shared)
    return Value(values[0].shape, blocks, frozenset(fixed))


@_rule("cond")
def _cond(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    branches = [walk.call(eqn, branch, ins[1:]) for branch in eqn.params["branches"]]
    return [_join(walk, values, walk.where(eqn)) for values in zip(*branches, strict=True)]


def _loop(
    walk: Walk, eqn: core.JaxprEqn, carry: list[Value], body: Callable[[list[Value]], list[Value]]
) -> tuple[list[Value], list[Value]]:
    """What holds of a carry before every step, and what the last walk over the body returned.

    The body is walked until nothing changes: classes only grow, and zeros only get fewer.
    """
    why = walk.where(eqn)
    carry = [_grounded(walk, value) for value in carry]
    while True:
        walk.called = []
        outputs = body(carry)
        joined = [_join(walk, pair, why) for pair in zip(carry, outputs[: len(carry)], strict=True)]
        if all(map(_same, carry, joined)):
            return carry, outputs
        carry = joined


def _grounded(walk: Walk, value: Value) -> Value:
    """`value` with ids of their own for its free axes: zeros that a state starts with take the size of what follows."""
    taken = {a for b in value.blocks for a in b.axes} | value.fixed
    free = sorted(longer({*range(len(value.shape))} - taken, value.shape))
    symbolic = {a for a in free if not isinstance(value.shape[a], int)}
    blocks = [
        Block((a,), walk.classes.new(value.shape[a]), np.full(value.shape[a], value.const == 0))
        for a in free
        if a not in symbolic
    ]
    return Value(value.shape, (*value.blocks, *blocks), value.fixed | symbolic)


def _same(a: Value, b: Value) -> bool:
    """Whether two abstract values differ in their classes at most, which the walk has unified."""

    def zeros(value: Value) -> dict[tuple[int, ...], bytes]:
        return {block.axes: block.zero.tobytes() for block in value.blocks}

    return zeros(a) == zeros(b) and a.fixed == b.fixed


@_rule("scan")
def _scan(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    consts, carries = eqn.params["num_consts"], eqn.params["num_carry"]
    why = f"steps of a loop, {walk.where(eqn)}"
    slices = [
        walk.carry(x, {a: a - 1 for a in range(1, len(x.shape))}, x.shape[1:], why) for x in ins[consts + carries :]
    ]
    carry, outputs = _loop(
        walk,
        eqn,
        ins[consts : consts + carries],
        lambda carry: walk.call(eqn, eqn.params["jaxpr"], [*ins[:consts], *carry, *slices]),
    )
    stacked = []
    for i, y in enumerate(outputs[carries:], carries):
        shape = _shape(eqn, i)
        stacked.append(walk.carry(y, {a: a + 1 for a in range(len(y.shape))}, shape, why)._replace(const=None))
    return [*carry, *stacked]


@_rule("while")
def _while(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    p = eqn.params
    first, second = p["cond_nconsts"], p["cond_nconsts"] + p["body_nconsts"]

    def body(carry: list[Value]) -> list[Value]:
        walk.call(eqn, p["cond_jaxpr"], [*ins[:first], *carry])
        return walk.call(eqn, p["body_jaxpr"], [*ins[first:second], *carry])

    return _loop(walk, eqn, ins[second:], body)[0]


@_rule(*ELEMENTWISE)
def _elementwise(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    shape = _shape(eqn)
    const = _evaluate(eqn, [v.const for v in ins]) if all(v.const is not None for v in ins) else None
    arrays = [v for v in ins if v.shape]
    if not arrays:
        return [Value(shape, const=const)]
    shared, fixed, _ = walk.align(arrays, None, walk.where(eqn))
    blocks = []
    for positions, ids, zeros, known in shared:
        given = iter(zeros)
        full = [next(given) if v.shape else np.full(ids.shape, v.const == 0) for v in ins]
        zero = _is_zero(eqn, full, [v.const for v in ins])
        blocks.append(Block(positions, ids, zero, every(known)))
    return [Value(shape, tuple(blocks), frozenset(fixed), const)]


def _is_zero(eqn: core.JaxprEqn, zeros: list[Flags], consts: list[float | None]) -> Flags:
    """Where an elementwise operation yields 0: where its operands are 0 or have a known value."""
    if eqn.primitive.name in ("mul", "and"):
        return some(zeros)
    if eqn.primitive.name == "select_n":
        return every(zeros[1:])
    if eqn.primitive.name == "div" and consts[1] != 0:
        return zeros[0]
    unknown = [zero for zero, const in zip(zeros, consts, strict=True) if const is None]
    alike = every(unknown) if unknown else np.ones_like(zeros[0])
    if alike.any() and _evaluate(eqn, [0.0 if c is None else c for c in consts]) == 0:
        return alike
    return np.zeros_like(alike)


def _evaluate(eqn: core.JaxprEqn, values: Sequence[float | None]) -> float:
    """The elementwise operation on scalars."""
    dtypes = tuple(v.aval.dtype for v in eqn.invars)  # type: ignore[attr-defined]
    try:
        return _evaluated(eqn.primitive, tuple(eqn.params.items()), tuple(values), dtypes)
    except TypeError:  # a parameter that cannot be hashed
        return _evaluated.__wrapped__(eqn.primitive, tuple(eqn.params.items()), values, dtypes)


@functools.lru_cache(maxsize=4096)  # a network repeats few operations on few numbers
def _evaluated(primitive: core.Primitive, params: tuple, values: Sequence[float | None], dtypes: tuple) -> float:
    with jax.ensure_compile_time_eval():  # the walk may happen while another function is traced
        scalars = [jnp.asarray(x, dtype) for x, dtype in zip(values, dtypes, strict=True)]
        return float(np.real(primitive.bind(*scalars, **dict(params))))


@_rule(*IDENTITIES)
def _identity(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    return ins


@_rule("transpose")
def _transpose(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    mapping = {int(a): i for i, a in enumerate(eqn.params["permutation"])}
    return [walk.carry(ins[0], mapping, _shape(eqn), walk.where(eqn))._replace(const=ins[0].const)]


@_rule("broadcast_in_dim")
def _broadcast(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    shape, dims = _shape(eqn), eqn.params["broadcast_dimensions"]
    mapping = {i: d for i, d in enumerate(dims) if ins[0].shape[i] == shape[d]}
    return [walk.carry(ins[0], mapping, shape, walk.where(eqn), rest="free")._replace(const=ins[0].const)]


@_rule("reduce_sum")
def _sum(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    """Channels that are known may leave a sum, if what it is divided by stays as it is: the mean of a layer norm."""
    axes, value = set(eqn.params["axes"]), ins[0]
    if walk.resized:
        why = f"not zero where {walk.where(eqn)} sums over it"
        inside = [b for b in value.blocks if set(b.axes) <= axes]
        walk.uses += [Use(b.ids, b.known if len(inside) == 1 else b.zero, why) for b in inside]
        value = value._replace(blocks=tuple(b for b in value.blocks if not set(b.axes) <= axes))
    return _reduce(walk, eqn, [value])


@_rule("reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "argmax", "argmin")
def _reduce(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    axes = eqn.params["axes"]
    kept = [a for a in range(len(ins[0].shape)) if a not in axes]
    mapping = {a: i for i, a in enumerate(kept)}
    return [walk.carry(ins[0], mapping, _shape(eqn), f"reduced over in {walk.where(eqn)}", strict=True)]


def _same_axes(walk: Walk, eqn: core.JaxprEqn, value: Value, touched: Iterable[int], keeps_zero: bool = True) -> Value:
    """An operation that leaves the order of axes, and mixes or resizes along the `touched` ones."""
    mapping = {a: a for a in range(len(value.shape)) if a not in set(touched)}
    return walk.carry(value, mapping, _shape(eqn), f"cut or mixed along in {walk.where(eqn)}", keeps_zero=keeps_zero)


@_rule("slice", "dynamic_slice")
def _slice(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    shape = _shape(eqn)
    return [_same_axes(walk, eqn, ins[0], [a for a, n in enumerate(ins[0].shape) if n != shape[a]])]


@_rule("pad")
def _pad(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    padded = [a for a, config in enumerate(eqn.params["padding_config"]) if any(config)]
    return [_same_axes(walk, eqn, ins[0], padded, keeps_zero=not padded or ins[1].const == 0)]


@_rule("rev")
def _rev(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    return [_same_axes(walk, eqn, ins[0], eqn.params["dimensions"])]


@_rule("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def _cumulative(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    return [_same_axes(walk, eqn, ins[0], [eqn.params["axis"]], keeps_zero=eqn.primitive.name != "cumlogsumexp")]


@_rule("reduce_window_sum", "reduce_window_max", "reduce_window_min")
def _reduce_window(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    p = eqn.params
    steps = (p["window_dimensions"], p["window_strides"], p["base_dilation"])
    touched = [
        a for a in range(len(ins[0].shape)) if any(step[a] != 1 for step in steps) or tuple(p["padding"][a]) != (0, 0)
    ]
    return [_same_axes(walk, eqn, ins[0], touched)]


@_rule("gather")
def _gather(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    """Lookups (embedding rows, nearest-neighbour resizing): axes that are taken whole pass."""
    operand, indices = ins
    numbers = eqn.params["dimension_numbers"]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [a for a in range(len(operand.shape)) if a not in gone]
    whole = [eqn.params["slice_sizes"][a] == operand.shape[a] for a in kept]
    mapping = {a: o for a, o, all_of_it in zip(kept, numbers.offset_dims, whole, strict=True) if all_of_it}
    walk.collapse(indices, range(len(indices.shape)), f"used as indices in {walk.where(eqn)}")
    # Indices out of bounds can read NaN in this mode, in every channel: then the channels that are left are NaN too.
    keeps_zero = walk.resized or "FILL" not in str(eqn.params["mode"])
    return [walk.carry(operand, mapping, _shape(eqn), f"looked up in {walk.where(eqn)}", keeps_zero=keeps_zero)]


@_rule("tile")
def _tile(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    tiled = [a for a, n in enumerate(eqn.params["reps"]) if n != 1]
    value = _same_axes(walk, eqn, ins[0], tiled)
    return [value._replace(fixed=value.fixed - {a for a in tiled if ins[0].shape[a] == 1}, const=ins[0].const)]


@_rule("dynamic_update_slice")
def _dynamic_update_slice(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    """Axes along which the update is as long as the array shrink together."""
    shape, why = _shape(eqn), f"cut or mixed along in {walk.where(eqn)}"
    part = [a for a, n in enumerate(ins[1].shape) if n != shape[a]]
    whole = [a for a in range(len(shape)) if a not in part]
    values = [walk.collapse(value, part, why) for value in ins[:2]]
    shared, fixed, _ = walk.align(values, [whole, whole], why)
    blocks = [Block(tuple(whole[p] for p in s.positions), s.ids, every(s.zeros)) for s in shared]
    fixed = {*part, *(whole[p] for p in fixed)}
    return [Value(shape, tuple(blocks), longer(fixed, shape))]


@_rule("reshape", "squeeze", "expand_dims")
def _reshape(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    value, shape, why = ins[0], _shape(eqn), walk.where(eqn)
    if 0 in shape:
        return _not_understood(walk, eqn, ins)

    def rank(b: Block) -> tuple:
        return not walk.classes.pinned(b.ids).all(), b.ids.size, b.axes

    if all(isinstance(n, int) for n in (*value.shape, *shape)):
        factors = list(_factors(value.shape, shape))
    elif value.shape[:1] == shape[:1] and all(isinstance(n, int) for n in (*value.shape[1:], *shape[1:])):
        behind = _factors(value.shape[1:], shape[1:])  # a symbolic batch axis that stays
        factors = [((0,), (0,)), *((tuple(a + 1 for a in x), tuple(a + 1 for a in y)) for x, y in behind)]
    else:
        return _not_understood(walk, eqn, ins)
    # Factors that one block spans are reshaped together; being in row-major order, their product decomposes.
    for block in value.blocks:
        spanned = [f for f in factors if set(f[0]) & set(block.axes)]
        if len(spanned) > 1:
            together = tuple(tuple(x for f in spanned for x in f[side]) for side in (0, 1))
            factors = [f for f in factors if f not in spanned] + [(together[0], together[1])]
    blocks, fixed = [], set()
    for sources, targets in factors:
        # Of several axes that become one, only one can still lose indices: the longest that can so far (a kernel's
        # input channels, not its window).
        own = sorted((b for b in value.blocks if set(b.axes) <= set(sources)), key=rank)
        for block in own[:-1]:
            walk.classes.pin(block.ids, f"merged with a longer axis in {why}")
        own = own[-1:]
        if not own:
            if any(a in value.fixed for a in sources):
                fixed |= set(targets)
            continue
        source_shape = tuple(value.shape[a] for a in sources)
        target_shape = tuple(shape[a] for a in targets)
        ids = walk.classes.find(spread(own[0].ids, own[0].axes, sources, source_shape).reshape(target_shape))
        zero = spread(own[0].zero, own[0].axes, sources, source_shape).reshape(target_shape)
        uniform = [i for i, n in enumerate(target_shape) if n == 1 or (ids == ids.take([0], axis=i)).all()]
        fixed |= {targets[i] for i in uniform}
        for i in uniform:
            ids, zero = ids.take([0], axis=i), zero.all(i, keepdims=True)
        rest = tuple(a for i, a in enumerate(targets) if i not in uniform)
        if rest:
            blocks.append(Block(rest, ids.squeeze(tuple(uniform)), zero.squeeze(tuple(uniform))))
            if len(rest) > 1:
                walk.splits.append((blocks[-1].ids, why))
        else:
            walk.classes.pin(ids, f"fills an axis in {why}")
    return [Value(shape, tuple(blocks), longer(fixed, shape), value.const)]


@functools.lru_cache(maxsize=1024)
def _factors(source: tuple[int, ...], target: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Split a reshape into the smallest runs of source and target axes with equal products, in order."""
    result = []
    i = j = 0
    while i < len(source) and j < len(target):
        first, other, a, b = i, j, source[i], target[j]
        i, j = i + 1, j + 1
        while a != b:
            if a < b:
                a, i = a * source[i], i + 1
            else:
                b, j = b * target[j], j + 1
        result.append((tuple(range(first, i)), tuple(range(other, j))))
    return [*result, (tuple(range(i, len(source))), tuple(range(j, len(target))))]  # what is left has size 1


@_rule("concatenate")
def _concatenate(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    shape, dim, why = _shape(eqn), eqn.params["dimension"], walk.where(eqn)
    ins = [walk.separate(walk.whole(v, [dim]), [dim], why) for v in ins]
    others = [a for a in range(len(shape)) if a != dim]
    shared, fixed, ins = walk.align(ins, [others] * len(ins), why)
    blocks = [Block(tuple(others[p] for p in s.positions), s.ids, every(s.zeros)) for s in shared]
    fixed = {others[p] for p in fixed}
    own = [next((b for b in v.blocks if b.axes == (dim,)), None) for v in ins]
    if any(own):
        pieces = []
        for value, block in zip(ins, own, strict=True):
            ids = block.ids if block else walk.classes.new(value.shape[dim])
            if block is None:
                walk.classes.pin(ids, f"fixed size in {why}")
            pieces.append((ids, block.zero if block else np.full(ids.shape, value.const == 0)))
        blocks.append(Block((dim,), np.concatenate([p[0] for p in pieces]), np.concatenate([p[1] for p in pieces])))
    else:
        fixed.add(dim)
    return [Value(shape, tuple(blocks), longer(fixed, shape))]


@_rule("split")
def _split(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    """Equal parts stay equal: channel i of each part goes with channel i of the others."""
    axis, sizes, why = eqn.params["axis"], eqn.params["sizes"], walk.where(eqn)
    value = walk.separate(walk.whole(ins[0], [axis]), [axis], why)
    if len(set(sizes)) > 1:
        value = walk.collapse(value, [axis], f"split unevenly in {why}")
    starts, outputs = np.cumsum([0, *sizes]), []
    for i, size in enumerate(sizes):
        blocks = []
        for block in value.blocks:
            if block.axes == (axis,):
                walk.classes.unify(block.ids[: sizes[0]], block.ids[starts[i] : starts[i] + size])
                part = slice(int(starts[i]), int(starts[i] + size))
                block = Block((axis,), block.ids[part], block.zero[part])
            blocks.append(block)
        shape = _shape(eqn, i)
        outputs.append(Value(shape, tuple(blocks), longer(value.fixed, shape)))
    return outputs


@_rule("dot_general")
def _dot(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    shape, why = _shape(eqn), walk.where(eqn)
    contracting, batch = eqn.params["dimension_numbers"]
    for side in (0, 1):  # an axis that was split must not be contracted in one part and kept in another
        ins[side] = walk.whole(ins[side], contracting[side])
        for axes in (contracting[side], batch[side]):
            ins[side] = walk.separate(ins[side], axes, f"summed over in {why}", strict=True)
    summed, _, ins = walk.align(ins, contracting, why)
    for s in summed:
        walk.uses.append(Use(s.ids, some(s.zeros), f"not zero where {why} sums over it"))
    shared, fixed, ins = walk.align(ins, batch, why)
    blocks = [Block(s.positions, s.ids, some(s.zeros)) for s in shared]
    start = len(batch[0])
    for side in (0, 1):
        free = [a for a in range(len(ins[side].shape)) if a not in (*contracting[side], *batch[side])]
        place = {a: start + i for i, a in enumerate(free)}
        start += len(free)
        blocks += [
            sorted_block([place[a] for a in b.axes], b.ids, b.zero) for b in ins[side].blocks if b.axes[0] in place
        ]
        fixed |= {place[a] for a in ins[side].fixed if a in place}
    return [Value(shape, tuple(blocks), frozenset(fixed))]


@_rule("conv_general_dilated")
def _conv(walk: Walk, eqn: core.JaxprEqn, ins: list[Value]) -> list[Value]:
    if eqn.params["batch_group_count"] != 1:
        return _not_understood(walk, eqn, ins)
    shape, why, numbers = _shape(eqn), walk.where(eqn), eqn.params["dimension_numbers"]
    (batch, feature, *space), (make, take, *window) = numbers.lhs_spec, numbers.rhs_spec
    lhs = walk.collapse(ins[0], space, "spatial axis of a convolution")
    rhs = walk.collapse(ins[1], window, "window of a convolution")
    lhs = walk.separate(lhs, [feature], why)
    groups = eqn.params["feature_group_count"]
    made = next((b for b in rhs.blocks if b.axes == (make,)), None)
    if groups > 1:
        lhs, made = _grouped(walk, lhs, rhs, feature, make, take, groups, why)
    else:
        summed, _, (lhs, _) = walk.align([lhs, rhs], [[feature], [take]], why)
        for s in summed:
            walk.uses.append(Use(s.ids, some(s.zeros), f"not zero where {why} sums over it"))
    batch_out, feature_out, *space_out = numbers.out_spec
    blocks = [Block((batch_out,), b.ids, b.zero) for b in lhs.blocks if b.axes == (batch,)]
    fixed = {*space_out, *([batch_out] if batch in lhs.fixed else [])}
    if made is not None:
        blocks.append(Block((feature_out,), made.ids, made.zero))
    else:
        fixed.add(feature_out)
    return [Value(shape, tuple(blocks), longer(fixed, shape))]


def _grouped(
    walk: Walk, lhs: Value, rhs: Value, feature: int, make: int, take: int, groups: int, why: str
) -> tuple[Value, Block | None]:
    """Grouped convolution: a depthwise one passes channels on; else each group loses the same positions."""
    taken = next((b for b in lhs.blocks if b.axes == (feature,)), None)
    made = next((b for b in rhs.blocks if b.axes == (make,)), None)
    if taken is None or made is None:
        lhs = walk.collapse(lhs, [feature], f"fixed size in {why}")
        walk.collapse(rhs, [make, take], f"fixed size in {why}")
        return lhs, None
    if rhs.shape[take] == 1:
        repeats = rhs.shape[make] // groups
        walk.classes.unify(np.repeat(taken.ids, repeats), made.ids)
        return lhs, made._replace(zero=made.zero | np.repeat(taken.zero, repeats))
    for ids in (taken.ids, made.ids):
        rows = ids.reshape(groups, -1)
        walk.classes.unify(rows, np.broadcast_to(rows[0], rows.shape))
    first = Value(
        (rhs.shape[take],),
        (Block((0,), taken.ids.reshape(groups, -1)[0], np.all(taken.zero.reshape(groups, -1), 0)),),
    )
    summed, _, _ = walk.align([first, rhs], [[0], [take]], why)
    for s in summed:
        walk.uses.append(Use(s.ids, some(s.zeros), f"not zero where {why} sums over it"))
    return lhs, made
