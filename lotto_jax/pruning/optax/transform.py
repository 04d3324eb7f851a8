"""Optax transformations that keep a mask, and that change it while training runs."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Int, Key, PyTree

from lotto_jax.pruning import distributions, masks, patterns, selection
from lotto_jax.pruning.masks import Mask, Params
from lotto_jax.pruning.optax import schedules
from lotto_jax.pruning.optax.rules import Evidence, Rule
from lotto_jax.pruning.optax.schedules import Schedule
from lotto_jax.pruning.patterns import Pattern
from lotto_jax.pruning.scores import Scores, random_scores


class SparseState(NamedTuple):
    """The optimizer state of `sparsify`: all of it is needed to go on, and enough to go on bit for bit.

    Attributes:
      step: calls of `update` made so far, int32.
      key: a typed key; the key of a call is folded from it and `step`.
      mask: the mask of the params that the next gradients are taken at.
      inner: the state of the wrapped optimizer.
      history: sum of -params * grads, float32, of the prunable leaves; () for rules that do not accumulate.
      snapshot: (params, inner) to rewind to; () for schedules that do not rewind.
    """

    step: Int[Array, ""]
    key: Key[Array, ""]
    mask: Mask
    inner: Any
    history: Any
    snapshot: Any


def _only_kept(updates: Params, params: Params, mask: Mask) -> Params:
    """Updates that leave p + u = 0 where pruned, exactly, whatever p is (if it is finite), and u elsewhere."""
    return jax.tree.map(lambda u, p, m: jnp.where(m, u, -p) if m.ndim else u, updates, params, mask)


def _need(params: Params | None) -> Params:
    if params is None:
        raise ValueError("update got no params; call update(grads, state, params), since pruned params must become 0.")
    return params


def masked_updates(tx: optax.GradientTransformation, mask: Mask) -> optax.GradientTransformationExtraArgs:
    """`tx` for a given mask: pruned params stay at 0, whatever moments `tx` carries for them.

    Gradients are masked before `tx` sees them, and the update of a pruned param p is -p, so that it is 0 after
    `optax.apply_updates` even if it was not before. All other updates are those of `tx`. The state is the state of
    `tx`: the same one goes on with a smaller mask. Put it around the whole chain: what comes after it can undo it.

    Make it inside the jitted step, with the mask as an argument of that step; then new masks compile nothing. Works
    under `vmap` over stacked params, masks and states, and on sharded arrays.

    Args:
      tx: any optax transformation.
      mask: boolean pytree with the structure of params, from `lotto_jax.pruning.ones` and pruning functions.

    Raises:
      ValueError: by `update`, if params are not given or the mask does not fit them.

    >>> @jax.jit
    ... def step(params, opt_state, mask, batch):
    ...     tx = masked_updates(optax.adam(1e-3), mask)
    ...     updates, opt_state = tx.update(jax.grad(loss)(params, batch), opt_state, params)
    ...     return optax.apply_updates(params, updates), opt_state
    >>> params, opt_state = step(params, opt_state, ones(params), batch)
    """
    tx = optax.with_extra_args_support(tx)

    def update(grads: Params, state: Any, params: Params | None = None, **extra: Any) -> tuple[Params, Any]:
        params = _need(params)
        updates, state = tx.update(masks.apply(grads, mask), state, params, **extra)
        return _only_kept(updates, params, mask), state

    return optax.GradientTransformationExtraArgs(tx.init, update)


def _once(due: Bool[Array, ""], change: Callable[[PyTree, tuple], PyTree], value: PyTree, seen: tuple) -> PyTree:
    """`change(value, seen)` where due, else value. Costs nothing where not due, also under `vmap`.

    A loop of one step or none: `lax.cond` under `vmap` computes both branches in every step, a loop runs only if some
    ticket is due. XLA takes what does not change in a loop out of it, and so would compute scores in every step; behind
    the barriers everything depends on `due`, which changes. Each part of `seen` has a barrier of its own, so that the
    loop does not wait for what `change` does not read: gradients, where weights alone decide.
    """

    def body(carry: tuple) -> tuple:
        now, value = carry
        behind = tuple(lax.optimization_barrier((part, now))[0] for part in seen)
        return jnp.zeros_like(now), change(value, behind)

    return lax.while_loop(lambda carry: carry[0], body, (due, value))[1]


class _Pool(NamedTuple):
    """Leaves (by number) that are selected from together, how many blocks they have, and how many go in the end."""

    leaves: list[int]
    size: int
    removed: int


def _pools(mask: Mask, rule: Rule, sparsity: float, pattern: Pattern) -> list[_Pool]:
    named = [(masks.path_name(path), m) for path, m in jax.tree_util.tree_leaves_with_path(mask)]
    where = [i for i, (_, m) in enumerate(named) if masks.is_prunable(m)]
    if not where:
        raise ValueError("params have no prunable leaf; give a `prunable` that accepts some (see pruning.ones).")
    shapes = {named[i][0]: patterns.units_shape(pattern, named[i][1].shape) for i in where}
    sizes = [math.prod(shape) for shape in shapes.values()]
    least = [pattern.least(named[i][1].shape) for i in where]
    if rule.distribution == "global":
        kept = distributions.kept_counts({"all": (sum(sizes),)}, sparsity, "uniform")
        _reachable("The network", kept[0], sum(least))
        return [_Pool(where, sum(sizes), sum(sizes) - kept[0])]
    counts = distributions.kept_counts(shapes, sparsity, rule.distribution)
    hint = "" if rule.distribution == "uniform" else ", or give the distribution 'uniform'"
    for name, count, fewest in zip(shapes, counts, least, strict=True):
        _reachable(name, count, fewest, hint)
    return [_Pool([i], size, size - count) for i, size, count in zip(where, sizes, counts, strict=True)]


def _reachable(name: str, kept: int, least: int, hint: str = "") -> None:
    if kept < least:
        raise ValueError(
            f"{name} would keep {kept:,} weights in the end, but the pattern keeps {least:,} of them or more; "
            f"lower the sparsity{hint}."
        )


def _select(
    rule: Rule,
    schedule: Schedule,
    pattern: Pattern,
    step: Int[Array, ""],
    mask: Mask,
    keep: Scores,
    grow: Scores | None,
) -> Mask:
    """The mask of `step`: without the lowest kept blocks, with the highest of the others where the rule grows."""
    leaves, structure = jax.tree.flatten(mask)
    low, high = jax.tree.leaves(keep), jax.tree.leaves(grow)
    for pool in _pools(mask, rule, schedule.sparsity, pattern):
        before = [jnp.ones_like(leaves[i]) if rule.straight_through else leaves[i] for i in pool.leaves]
        units = [patterns.to_units(pattern, low[i], m) for i, m in zip(pool.leaves, before, strict=True)]
        values, kept, may_go = ([leaf[part] for leaf in units] for part in range(3))
        current = masks.num_kept(kept)
        target = pool.size - schedules.removed(schedule, step, pool.removed)
        fall = jnp.clip(current - target, 0, masks.num_kept(may_go))
        number = jnp.maximum(target, current - fall)  # above the target where the pattern spares more
        if grow is None or pattern.spared is not None:
            gone = selection.lowest(values, may_go, fall)
            kept, fall = [m & ~g for m, g in zip(kept, gone, strict=True)], jnp.int32(0)
        if grow is not None:
            ones = [jnp.ones_like(leaves[i]) for i in pool.leaves]
            others = [patterns.to_units(pattern, high[i], m)[0] for i, m in zip(pool.leaves, ones, strict=True)]
            share = jnp.float32(0) if rule.swapped is None else rule.swapped(step, schedule.end)
            kept = _swap(pattern, values, others, kept, fall + selection.rounded_share(share, number), number)
        for i, m in zip(pool.leaves, kept, strict=True):
            leaves[i] = patterns.to_entries(pattern, m, leaves[i].shape)
    return jax.tree.unflatten(structure, leaves)


def _swap(
    pattern: Pattern,
    values: list[Array],
    others: list[Array],
    kept: list[Array],
    dropped: Int[Array, ""],
    number: Int[Array, ""],
) -> list[Array]:
    """`kept` without the `dropped` lowest by `values`, filled up to `number` with the highest by `others`.

    Where a pattern spares blocks, what each of its groups lacks comes back within the group, and only then the rest.
    """
    gone = selection.lowest(values, kept, dropped)
    kept = [m & ~g for m, g in zip(kept, gone, strict=True)]
    if pattern.spared is not None:
        best = [jnp.where(m, jnp.asarray(jnp.inf, x.dtype), x) for x, m in zip(others, kept, strict=True)]
        kept = [m | pattern.spared(x, jnp.ones_like(m)) for x, m in zip(best, kept, strict=True)]
    missing = jnp.maximum(number - masks.num_kept(kept), 0)
    back = selection.lowest([-x for x in others], [~m for m in kept], missing)
    return [m | b for m, b in zip(kept, back, strict=True)]


def _forget(tx: optax.GradientTransformation, inner: Any, grown: Mask) -> Any:
    """The optimizer state with zeros for grown weights, in every part that has the shape of params."""
    return optax.tree_utils.tree_map_params(
        tx, lambda x, g: jnp.where(g, jnp.zeros((), x.dtype), x) if g.ndim and x.shape == g.shape else x, inner, grown
    )


def _check_kinds(rule: Any, schedule: Any, pattern: Any) -> None:
    for name, given, kind, example in (
        ("rule", rule, Rule, "magnitude()"),
        ("schedule", schedule, Schedule, "one_shot(0.5, at=100)"),
        ("pattern", pattern, Pattern, "patterns.nm(2, 4)"),
    ):
        if not isinstance(given, kind):
            raise TypeError(f"{name} is {given!r}; give one that the library makes, such as {example}.")


def sparsify(
    tx: optax.GradientTransformation,
    rule: Rule,
    schedule: Schedule,
    *,
    pattern: Pattern | None = None,
    prunable: masks.Prunable = masks.is_kernel,
    key: Key[Array, ""] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`tx` that makes params sparse while it trains them, by a rule on a schedule.

    Wrap the whole optimizer; the training loop stays as it is. `update` needs params. The masks are in the state
    (`mask_of(opt_state)`) and change inside the compiled step; between two changes no score is computed.
    Works under `jit`, under `vmap` over stacked params and states, and on sharded arrays.

    A call changes the mask by the params and gradients that it gets, then updates with the new mask. Where a rule
    grows (SET, RigL), a call that changes the mask does nothing else (Evci et al., algorithm 1): the optimizer makes
    no step, weights that come back start at 0, and so do their moments. In every other call the updates of kept
    weights are those of `tx` for masked gradients, and pruned params are exactly 0 afterwards.

    The number of weights kept is exact: at the end N - round(sparsity N) of a named distribution, on the way never
    more than the schedule says, but for shorter last groups of an N:M pattern (`patterns.nm`). Equal scores are removed
    by position, so the same state gives the same mask.

    Rules that start sparse (`static`, `set_`, `rigl`) have their mask from `init` on, but params become 0 only in the
    first `update`; take the loss at `forward_params(params, opt_state)` if the first forward pass should be sparse.

    Args:
      tx: any optax transformation.
      rule: `magnitude()`, `saliency()`, `movement()`, `random()`, `static()`, `set_()`, `rigl()` or
        `straight_through(rule)`. Their `distribution` is "global" (one pool of all leaves), "uniform", "erdos_renyi",
        "erdos_renyi_kernel", or a mapping from regular expressions over path names ("encoder/.*") to sparsities, which
        then stand for the sparsity of the schedule.
      schedule: `constant`, `one_shot`, `cubic`, `polynomial` or `iterative`.
      pattern: what goes and comes together, from `lotto_jax.pruning.patterns`; numbers then count blocks. Default:
        every entry by itself.
      prunable: which leaves of params can be pruned, as in `lotto_jax.pruning.ones`; kernels by default.
      key: a typed key, for rules that draw at random; `jax.random.key(0)` by default.

    Returns:
      A transformation whose state is a `SparseState`.

    Raises:
      TypeError: if rule, schedule or pattern is not a `Rule`, `Schedule` or `Pattern`.
      ValueError: if the rule needs an `end` that the schedule lacks; by `init`, if no leaf is prunable, a regular
        expression matches none, or the pattern keeps more than the schedule would; by `update`, without params.

    >>> import lotto_jax.pruning.optax as sparse
    >>> tx = sparse.sparsify(optax.adam(1e-3), sparse.magnitude(), sparse.cubic(0.9, begin=0, end=10, every=5))
    >>> @jax.jit
    ... def step(params, opt_state, batch):
    ...     updates, opt_state = tx.update(jax.grad(loss)(params, batch), opt_state, params)
    ...     return optax.apply_updates(params, updates), opt_state
    >>> opt_state = tx.init(params)
    >>> for _ in range(11):
    ...     params, opt_state = step(params, opt_state, batch)
    >>> print(f"{sparsity(sparse.mask_of(opt_state)):.2f}")
    0.90
    """
    pattern = patterns.entries() if pattern is None else pattern
    _check_kinds(rule, schedule, pattern)
    tx = optax.with_extra_args_support(tx)
    grows = rule.grow is not None
    if rule.swapped is not None:
        rule.swapped(jnp.int32(0), schedule.end)  # raises where it needs an end

    def init(params: Params) -> SparseState:
        mask = masks.ones(params, prunable)
        start_key, step_key = jax.random.split(jax.random.key(0) if key is None else key)
        _pools(mask, rule, schedule.sparsity, pattern)  # raises on what does not fit
        step = jnp.zeros((), jnp.int32)
        if rule.random_start:
            first = jax.jit(functools.partial(_select, rule, schedule, pattern, grow=None))
            mask = first(step, mask, random_scores(start_key, params))
        history: Any = ()
        if rule.accumulates:
            history = jax.tree.map(lambda m: jnp.zeros(m.shape, jnp.float32), mask)
        # Copies, so that a step may donate params and state both.
        snapshot = (jax.tree.map(jnp.copy, params), tx.init(params)) if schedule.rewind else ()
        return SparseState(step, step_key, mask, tx.init(params), history, snapshot)

    def update(
        grads: Params, state: SparseState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, SparseState]:
        params, step, inner = _need(params), state.step, state.inner
        history = state.history
        if rule.accumulates:
            history = jax.tree.map(
                lambda h, p, g: h - p.astype(jnp.float32) * g.astype(jnp.float32) if h.ndim else h,
                history,
                params,
                grads,
            )
        seen = (params, grads, history, step)
        due, now = schedule.due(step), jnp.zeros((), bool)
        if rule.random_start:
            due = (due & (step > 0)) if grows else jnp.zeros_like(due)
        snapshot = state.snapshot
        if schedule.rewind:
            now = schedule.rewind.now(step)
            snapshot = _once(step == schedule.rewind.save, lambda _, seen: seen, snapshot, (params, inner))
            history = jax.tree.map(lambda h: jnp.where(now, jnp.zeros((), h.dtype), h), history)

        def select(mask: Mask, seen: tuple) -> Mask:
            params, grads, history, step = seen
            # Folded from the step behind the barrier of `_once`, so that drawing by the key is not taken out either.
            evidence = Evidence(params, grads, history, jax.random.fold_in(state.key, step))
            grow = rule.grow(evidence) if rule.grow is not None else None
            return _select(rule, schedule, pattern, step, mask, rule.keep(evidence), grow)

        def optimize(mask: Mask) -> tuple[Params, Any]:
            gradients = grads if rule.straight_through else masks.apply(grads, mask)
            updates, after = tx.update(gradients, inner, params, **extra)
            updates = jax.tree.map(lambda u, p: u.astype(jnp.promote_types(u.dtype, p.dtype)), updates, params)
            return updates if rule.straight_through else _only_kept(updates, params, mask), after

        def rest(like: Params) -> tuple[Params, Any, Mask]:
            """A call without a step of the optimizer: weights come back, or training does to its snapshot."""
            mask = _once(due, select, state.mask, seen)
            stays = jax.tree.map(jnp.logical_and, mask, state.mask)  # what came back is 0 first
            updates = _only_kept(jax.tree.map(jnp.zeros_like, like), params, stays)
            after = inner
            if grows:
                grown = jax.tree.map(lambda a, b: a & ~b if a.ndim else jnp.zeros((), bool), mask, state.mask)
                after = _forget(tx, inner, grown)
            if schedule.rewind:
                start = snapshot[0] if rule.straight_through else masks.apply(snapshot[0], mask)
                updates = jax.tree.map(lambda u, s, p: jnp.where(now, s - p, u), updates, start, params)
                after = jax.tree.map(lambda x, y: jnp.where(now, x, y), snapshot[1], after)
            return jax.tree.map(lambda u, x: u.astype(x.dtype), updates, like), after, mask

        if grows or schedule.rewind:
            # Branches, so that a call which steps reads neither the old mask nor the snapshot. Under vmap they become
            # a choice between the results of both; the loop in `rest` still computes no score off schedule.
            like, _ = jax.eval_shape(optimize, state.mask)
            updates, after, mask = lax.cond(due | now, lambda: rest(like), lambda: (*optimize(state.mask), state.mask))
        else:
            # One elementwise pass, into which the caller's `apply_updates` fuses.
            mask = _once(due, select, state.mask, seen)
            updates, after = optimize(mask)
        return updates, SparseState(step + 1, state.key, mask, after, history, snapshot)

    return optax.GradientTransformationExtraArgs(init, update)


def _state_of(opt_state: Any) -> SparseState:
    found = [
        x
        for x in jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, SparseState))
        if isinstance(x, SparseState)
    ]
    if len(found) != 1:
        raise ValueError(f"The optimizer state holds {len(found)} states of sparsify; it must hold exactly one.")
    return found[0]


def mask_of(opt_state: Any) -> Mask:
    """The mask in the state of a `sparsify`, at any depth of an optax state.

    Raises:
      ValueError: if the state holds none, or several.
    """
    return _state_of(opt_state).mask


@jax.custom_jvp
def _straight(p: Array, m: Array) -> Array:
    return jnp.where(m, p, jnp.zeros((), p.dtype))


@_straight.defjvp
def _straight_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    return _straight(*primals), tangents[0]


def forward_params(params: Params, opt_state: Any) -> Params:
    """The params of the forward pass: exact zeros where the mask has them, yet gradients for all weights.

    The straight-through estimator (Bengio et al. 2013): the derivative of the masked by the dense params is 1. Rules
    wrapped in `straight_through` need it in the loss; elsewhere params are masked already after the first update, and
    `lotto_jax.pruning.apply` would hide from RigL the gradients that it grows by.

    Args:
      params: as they train.
      opt_state: the state of a `sparsify`, at any depth of an optax state.

    Raises:
      ValueError: if the state holds no `SparseState` or several, or the mask does not fit.

    >>> import lotto_jax.pruning.optax as sparse
    >>> tx = sparse.sparsify(optax.adam(1e-3), sparse.straight_through(sparse.magnitude()), sparse.constant(0.9))
    >>> opt_state = tx.init(params)
    >>> grads = jax.grad(lambda p: loss(forward_params(p, opt_state), batch))(params)
    """
    mask = mask_of(opt_state)
    masks.check(params, mask)
    return jax.tree.map(lambda p, m: _straight(p, m) if m.ndim else p, params, mask)
