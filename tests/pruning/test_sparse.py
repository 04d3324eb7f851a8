"""Sparse training against float64 NumPy versions of the papers' rules; jitted, vmapped, sharded and resumed alike."""

import functools
import importlib
import io
import math
import re
import runpy
import sys
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import lotto_jax.pruning.optax as sparse
from lotto_jax import pruning
from lotto_jax.objectives.state import masked_update
from lotto_jax.pruning.optax import schedules

SHAPES = {"a": (6, 5), "b": (2, 5, 7)}
SIZE = 100
STEPS, RATE, DECAY = 24, 0.1, 0.9
OPTIMIZER = optax.sgd(RATE, momentum=DECAY)


def draws(seed=0, steps=STEPS):
    """Params, and the gradients of all steps."""
    rng = np.random.default_rng(seed)
    params = {name: {"kernel": rng.normal(size=s).astype(np.float32)} for name, s in SHAPES.items()}
    grads = {name: {"kernel": rng.normal(size=(steps, *s)).astype(np.float32)} for name, s in SHAPES.items()}
    params["a"]["bias"], grads["a"]["bias"] = np.ones(5, np.float32), np.ones((steps, 5), np.float32)
    return params, grads


def one_step(tx, carry, grads):
    params, state = carry
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    return (params, state), (params, state.mask)


def train(tx, params, grads, state=None):
    """The last params and state, and params and masks after every step."""
    return jax.lax.scan(functools.partial(one_step, tx), (params, tx.init(params) if state is None else state), grads)


def flat(tree):
    return np.concatenate([np.asarray(tree[name]["kernel"]).reshape(-1) for name in SHAPES])


def lowest(scores, candidates, count):
    """Positions of the `count` lowest of the candidates, of equal ones the first."""
    order = np.lexsort((np.arange(scores.size), scores))
    return order[candidates[order]][:count]


def reference(params, grads, pools, kept_at, score, *, start=None, dense=False, swapped=None):
    """Masks and weights of every step in float64.

    Args:
      pools: index arrays that are selected from apart.
      kept_at: `step -> how many each pool keeps from then on`, or None where masks stay.
      score: `(weights, gradients, history) -> scores`, higher = keep.
      start: the mask before the first step.
      dense: straight-through.
      swapped: `step -> share` of RigL, which grows by |gradient| and then makes no step.
    """
    w = flat(params).astype(np.float64)
    mask = np.ones(w.size, bool) if start is None else start.copy()
    trace, history = np.zeros_like(w), np.zeros_like(w)
    for step in range(STEPS):
        g = flat(jax.tree.map(lambda x, i=step: x[i], grads)).astype(np.float64)
        history -= w * g
        counts, grown = kept_at(step), np.zeros_like(mask)
        if counts is not None:
            before = mask.copy()
            for pool, count in zip(pools, counts, strict=True):
                inside = np.isin(np.arange(w.size), pool)
                mask = mask | inside if dense else mask
                extra = round(swapped(step) * count) if swapped else 0
                mask[lowest(score(w, g, history), mask & inside, (mask & inside).sum() - count + extra)] = False
                if swapped:
                    mask[lowest(-np.abs(g), ~mask & inside, extra)] = True
            grown = mask & ~before
            if swapped:
                trace[grown] = 0
        if counts is None or not swapped:
            trace = DECAY * trace + (g if dense else g * mask)
            w = w - RATE * trace
        if not dense:
            w = np.where(mask & ~grown, w, 0)
        yield mask.copy(), w.copy()


BOTH = [np.arange(SIZE)]
EACH = [np.arange(30), np.arange(30, SIZE)]
BEGIN, END, EVERY = 3, 18, 5


def gradual(sizes, power, final=0.8, initial=0.0):
    """Zhu & Gupta, eq. 1, as numbers of weights kept."""

    def kept(step):
        if step < BEGIN or step > END or ((step - BEGIN) % EVERY and step != END):
            return None
        share = (final + (initial - final) * (1 - (step - BEGIN) / (END - BEGIN)) ** power) / final
        return [n - int(np.ceil(share * round(final * n) - 1e-4)) for n in sizes]

    return kept


def by_movement(w, g, history):
    return history


def by_magnitude(w, g, history):
    return np.abs(w)


PRUNING = {
    "magnitude": (sparse.magnitude(), sparse.cubic(0.8, BEGIN, END, EVERY, initial=0.2), BOTH, by_magnitude),
    "saliency": (
        sparse.saliency("uniform"),
        sparse.polynomial(0.8, BEGIN, END, EVERY, power=1),
        EACH,
        lambda w, g, history: np.abs(w * g),
    ),
    "movement": (sparse.movement(), sparse.cubic(0.8, BEGIN, END, EVERY), BOTH, by_movement),
    "straight-through movement": (
        sparse.straight_through(sparse.movement()),
        sparse.cubic(0.8, BEGIN, END, EVERY),
        BOTH,
        by_movement,
    ),
}
CURVES = {"magnitude": (3, 0.2), "saliency": (1, 0.0)}


@pytest.mark.parametrize("name", PRUNING)
def test_gradual_pruning_is_the_papers(name):
    rule, schedule, pools, score = PRUNING[name]
    params, grads = draws()
    power, initial = CURVES.get(name, (3, 0.0))
    kept = gradual([p.size for p in pools], power, initial=initial)
    expected = reference(params, grads, pools, kept, score, dense=rule.straight_through)
    _, (after, masks) = jax.jit(functools.partial(train, sparse.sparsify(OPTIMIZER, rule, schedule)))(params, grads)
    for step, (mask, weights) in enumerate(expected):
        at = lambda tree, i=step: flat(jax.tree.map(lambda x: x[i], tree))  # noqa: E731
        np.testing.assert_array_equal(at(masks), mask, err_msg=f"step {step}")
        np.testing.assert_allclose(at(after), weights, rtol=1e-4, atol=1e-5)
        assert rule.straight_through or np.all(at(after)[~mask] == 0)
    assert mask.sum() == 20


def test_rigl_is_algorithm_1():
    params, grads = draws(1)
    kept = [10, 10]
    schedule = sparse.constant(0.8, every=4, end=20)
    tx = sparse.sparsify(OPTIMIZER, sparse.rigl(0.5, {"a/.*": 2 / 3, "b/.*": 6 / 7}), schedule)
    start = flat(tx.init(params).mask)
    assert [start[pool].sum() for pool in EACH] == kept
    expected = reference(
        params,
        grads,
        EACH,
        lambda step: kept if step % 4 == 0 and 0 < step < 20 else None,
        by_magnitude,
        start=start,
        swapped=lambda t: 0.5 / 2 * (1 + np.cos(t * np.pi / 20)),
    )
    _, (after, masks) = jax.jit(functools.partial(train, tx))(params, grads)
    seen = {start.tobytes()}
    for step, (mask, weights) in enumerate(expected):
        at = lambda tree, i=step: flat(jax.tree.map(lambda x: x[i], tree))  # noqa: E731
        np.testing.assert_array_equal(at(masks), mask, err_msg=f"step {step}")
        np.testing.assert_allclose(at(after), weights, rtol=1e-4, atol=1e-5)
        seen.add(mask.tobytes())
    assert len(seen) == 4  # the share is 0.45, 0.33, 0.17 at steps 4, 8 and 12, and rounds to nothing at 16


def test_set_replaces_the_smallest_by_random_ones_and_forgets_their_moments():
    params, grads = draws(2)
    tx = sparse.sparsify(optax.adam(RATE), sparse.set_(0.4, "uniform"), sparse.constant(0.5, every=6))
    step = jax.jit(functools.partial(one_step, tx))
    carry, gradients = (params, tx.init(params)), lambda i: jax.tree.map(lambda x: x[i], grads)
    for i in range(6):
        carry, _ = step(carry, gradients(i))
    (before, state), ((after, changed), _) = carry, step(carry, gradients(6))
    old, new, weights = flat(state.mask), flat(changed.mask), np.abs(flat(before))
    for pool, swapped in zip(EACH, (6, 14), strict=True):
        assert new[pool].sum() == old[pool].sum() == pool.size // 2
        dropped = np.zeros(SIZE, bool)
        dropped[lowest(weights, old & np.isin(np.arange(SIZE), pool), swapped)] = True
        assert new[pool][(old & ~dropped)[pool]].all()  # only the smallest went
    grown = new & ~old
    assert grown.any()
    assert np.all(flat(after)[grown] == 0) and np.all(flat(after)[old & new] == flat(before)[old & new])
    for moment in (changed.inner[0].mu, changed.inner[0].nu):
        assert np.all(flat(moment)[grown] == 0) and np.all(flat(moment)[old & new] != 0)
    elsewhere = sparse.sparsify(OPTIMIZER, sparse.static("uniform"), sparse.constant(0.5), key=jax.random.key(7)).init(
        params
    )
    assert np.any(flat(elsewhere.mask) != flat(tx.init(params).mask))


def test_static_and_random_rules_keep_exact_numbers_and_never_revive():
    params, grads = draws(3)
    tx = sparse.sparsify(OPTIMIZER, sparse.static("uniform"), sparse.constant(0.7, every=2))
    start = flat(tx.init(params).mask)
    _, (after, masks) = jax.jit(functools.partial(train, tx))(params, grads)
    for i in range(STEPS):
        np.testing.assert_array_equal(flat(jax.tree.map(lambda x, i=i: x[i], masks)), start)
        np.testing.assert_array_equal(flat(jax.tree.map(lambda x, i=i: x[i], after)) != 0, start)
    tx = sparse.sparsify(OPTIMIZER, sparse.random(), sparse.one_shot(0.37, at=5))
    _, (after, masks) = jax.jit(functools.partial(train, tx))(params, grads)
    kept = [flat(jax.tree.map(lambda x, i=i: x[i], masks)).sum() for i in range(STEPS)]
    assert kept == [100] * 5 + [63] * 19


def test_iterative_pruning_rewinds_params_and_moments_exactly():
    params, grads = draws(4, steps=40)
    # Weights of many magnitudes, so that a sum of snapshot minus weights and weights would be rounded.
    params["b"]["kernel"] *= np.exp(np.random.default_rng(5).uniform(-20, 5, SHAPES["b"])).astype(np.float32)
    schedule = sparse.iterative(0.2, rounds=2, round_steps=10, rewind_step=4)
    tx = sparse.sparsify(optax.adam(RATE), sparse.magnitude(), schedule)
    step = jax.jit(functools.partial(one_step, tx))
    carry, states = (params, tx.init(params)), []
    for i in range(40):
        states.append(carry)
        carry, _ = step(carry, jax.tree.map(lambda x, i=i: x[i], grads))
    snapshot, alive = states[4], np.ones(SIZE, bool)
    for trained, rewound, kept in ((10, 12, 80), (18, 20, 64)):
        alive[lowest(np.abs(flat(states[trained][0])), alive, alive.sum() - kept)] = False
        np.testing.assert_array_equal(flat(states[rewound][1].mask), alive)
        np.testing.assert_array_equal(flat(states[rewound][0]), np.where(alive, flat(snapshot[0]), 0))
        np.testing.assert_array_equal(states[rewound][0]["a"]["bias"], snapshot[0]["a"]["bias"])
        jax.tree.map(np.testing.assert_array_equal, states[rewound][1].inner, snapshot[1].inner)
    assert not np.array_equal(flat(states[39][0]), flat(states[20][0]))
    np.testing.assert_array_equal(flat(states[39][1].mask), alive)
    assert int(states[39][1].inner[0].count) == 4 + 19  # the last training has no end


def tickets():
    return [draws(seed) for seed in (6, 7)]


@pytest.fixture(scope="module")
def rigl_run():
    """Two tickets of RigL, one at a time: (transformation, params, gradients, results)."""
    tx = sparse.sparsify(optax.adam(RATE), sparse.rigl(0.5, "global"), sparse.constant(0.6, every=4, end=20))
    run = jax.jit(functools.partial(train, tx))
    return tx, [run(*ticket)[0] for ticket in tickets()]


def raw(tree):
    keys = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    return [np.asarray(keys(x)) for x in jax.tree.leaves(tree)]


def test_stacked_tickets_are_single_ones(rigl_run):
    tx, single = rigl_run
    params, grads = zip(*tickets(), strict=True)
    many, _ = jax.jit(jax.vmap(functools.partial(train, tx)))(pruning.stack(params), pruning.stack(grads))
    for i, one in enumerate(single):
        for a, b in zip(raw(many), raw(one), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(flat(jax.tree.map(lambda x, i=i: x[i], many[1].mask)), flat(one[1].mask))


def test_sharded_params_get_the_same_masks(rigl_run):
    tx, single = rigl_run
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    params, grads = tickets()[0]
    params["a"]["kernel"] = jax.device_put(params["a"]["kernel"], NamedSharding(mesh, P("data")))
    params["b"]["kernel"] = jax.device_put(params["b"]["kernel"], NamedSharding(mesh, P("data")))
    (after, state), _ = jax.jit(functools.partial(train, tx))(params, grads)
    np.testing.assert_array_equal(flat(state.mask), flat(single[0][1].mask))
    np.testing.assert_allclose(flat(after), flat(single[0][0]), rtol=1e-5, atol=1e-6)


def test_a_stored_state_goes_on_bit_for_bit():
    params, grads = draws(8)
    tx = sparse.sparsify(optax.adam(RATE), sparse.set_(0.4), sparse.constant(0.6, every=4))
    step = jax.jit(functools.partial(one_step, tx))
    carry = (params, tx.init(params))
    for i in range(14):
        if i == 6:
            file = io.BytesIO()
            np.savez(file, *raw(carry))
        carry, _ = step(carry, jax.tree.map(lambda x, i=i: x[i], grads))
    file.seek(0)
    stored = iter(np.load(file).values())
    like, structure = jax.tree.flatten((params, tx.init(params)))
    is_key = [jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in like]
    leaves = [jax.random.wrap_key_data(x) if k else jnp.asarray(x) for x, k in zip(stored, is_key, strict=True)]
    resumed = jax.tree.unflatten(structure, leaves)
    for i in range(6, 14):
        resumed, _ = step(resumed, jax.tree.map(lambda x, i=i: x[i], grads))
    for a, b in zip(raw(resumed), raw(carry), strict=True):
        np.testing.assert_array_equal(a, b)


def test_between_changes_the_rule_is_not_computed_under_vmap_either():
    calls = []

    def keep(evidence):
        jax.debug.callback(lambda: calls.append(0))
        return pruning.magnitude(evidence.params)

    tx = sparse.sparsify(OPTIMIZER, sparse.Rule(keep), sparse.cubic(0.5, begin=2, end=12, every=5))
    params, grads = zip(*tickets(), strict=True)
    jax.block_until_ready(jax.jit(jax.vmap(functools.partial(train, tx)))(pruning.stack(params), pruning.stack(grads)))
    jax.effects_barrier()
    assert 3 <= len(calls) <= 6  # three changes of two tickets, in 24 steps


@pytest.mark.parametrize("tx", [OPTIMIZER, optax.adam(RATE)], ids=["sgd", "adam"])
def test_masked_updates_are_the_masked_step_of_the_loop(tx):
    """Bit for bit, operation by operation and in one program."""
    params, grads = draws(9, steps=4)
    mask = pruning.global_prune(pruning.magnitude(params), pruning.ones(params), 0.3)
    stacked = [pruning.stack([x, jax.tree.map(lambda leaf: leaf * 2, x)]) for x in (params, grads)]
    masks = pruning.stack([mask, pruning.ones(params)])

    def run(step, params, grads, mask):
        state = tx.init(params)
        # Moments of pruned weights, which must not move them.
        _, state = tx.update(jax.tree.map(lambda x: x[0], grads), state, params)
        for i in range(1, 4):
            params, state = step(jax.tree.map(lambda x, i=i: x[i], grads), state, params, mask)
        return params, state

    def ours(grads, state, params, mask):
        return masked_update(tx, grads, state, params, mask)

    def theirs(grads, state, params, mask):
        updates, state = sparse.masked_updates(tx, mask).update(grads, state, params)
        return optax.apply_updates(params, updates), state

    wanted = run(ours, params, grads, mask)
    jax.tree.map(np.testing.assert_array_equal, run(theirs, params, grads, mask), wanted)
    jitted = (jax.jit(functools.partial(run, step))(params, grads, mask) for step in (ours, theirs))
    jax.tree.map(np.testing.assert_array_equal, *jitted)
    assert np.all(flat(wanted[0])[~flat(mask)] == 0) and np.all(flat(wanted[0])[flat(mask)] != 0)
    many = jax.vmap(functools.partial(run, theirs))(*stacked, masks)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y), many, wanted)
    mesh = NamedSharding(Mesh(np.array(jax.devices()[:2]), ("data",)), P("data"))
    params["a"]["kernel"], params["b"]["kernel"] = (jax.device_put(params[n]["kernel"], mesh) for n in SHAPES)
    jax.tree.map(np.testing.assert_array_equal, run(theirs, params, grads, mask), wanted)


def test_forward_params_are_masked_and_pass_all_gradients():
    params, _ = draws()
    tx = optax.chain(optax.clip(1.0), sparse.sparsify(OPTIMIZER, sparse.static("global"), sparse.constant(0.5)))
    state = tx.init(params)
    loss = lambda p: sum(jnp.sum(x**2) for x in jax.tree.leaves(sparse.forward_params(p, state)))  # noqa: E731
    masked = pruning.apply(params, sparse.mask_of(state))
    jax.tree.map(np.testing.assert_array_equal, sparse.forward_params(params, state), masked)
    jax.tree.map(lambda g, m: np.testing.assert_array_equal(g, 2 * m), jax.grad(loss)(params), masked)
    ones = jax.grad(lambda p: sum(jnp.sum(x) for x in jax.tree.leaves(sparse.forward_params(p, state))))(params)
    assert all(np.all(x == 1) for x in jax.tree.leaves(ones))


def test_patterns_hold_while_training_runs():
    params, grads = draws(10)
    params["a"]["kernel"], grads["a"]["kernel"] = params["b"]["kernel"][0], grads["b"]["kernel"][:, 0]
    of = lambda tree, i: jax.tree.map(lambda x: np.asarray(x[i]), tree)  # noqa: E731
    rule, schedule = sparse.set_(0.5, "uniform"), sparse.constant(3 / 7, every=2)
    tx = sparse.sparsify(OPTIMIZER, rule, schedule, pattern=pruning.patterns.channels(-1))
    (_, state), (_, masks) = jax.jit(functools.partial(train, tx))(params, grads)
    assert set(state.mask) == {"a", "b"}
    columns = np.asarray(masks["b"]["kernel"])
    assert np.all(columns == columns[:, :1, :1]) and np.all(columns[:, 0, 0].sum(-1) == 4)
    assert len({m.tobytes() for m in columns[:, 0, 0]}) > 5
    schedule = sparse.cubic(0.5, begin=0, end=20, every=4)
    tx = sparse.sparsify(
        OPTIMIZER, sparse.straight_through(sparse.magnitude()), schedule, pattern=pruning.patterns.nm(1, 2, axis=0)
    )
    params, grads = {"w": params["b"]["kernel"]}, {"w": grads["b"]["kernel"]}
    (_, state), (after, _) = jax.jit(functools.partial(train, tx))(params, grads)
    size = np.abs(of(after, 19)["w"])  # the last change sees the params before step 20
    np.testing.assert_array_equal(state.mask["w"], size == size.max(0))


def test_what_comes_back_keeps_to_n_of_m():
    """A change by RigL against NumPy: 40 % sparse, so that groups of 1:2 keep one or two."""
    params, grads = draws(11)
    params, grads = {"w": params["b"]["kernel"][:, :4]}, {"w": grads["b"]["kernel"][:, :, :4]}
    tx = sparse.sparsify(
        OPTIMIZER,
        sparse.rigl(0.5, "uniform"),
        sparse.constant(0.4, every=2, end=20),
        pattern=pruning.patterns.nm(1, 2, axis=1),
    )
    groups = lambda x: np.moveaxis(np.array(x).reshape(2, 2, 2, 7), 2, 3).reshape(-1, 2)  # noqa: E731
    start = groups(tx.init(params).mask["w"])
    assert start.sum() == 34 and start.any(1).all()
    (_, _), (after, masks) = jax.jit(functools.partial(train, tx))(params, grads)
    for mask in masks["w"]:
        assert mask.sum() == 34 and groups(mask).any(1).all()
    weights, slopes, mask = np.abs(groups(after["w"][1])), np.abs(groups(grads["w"][2])), groups(masks["w"][1])
    flat_mask = mask.reshape(-1)
    flat_mask[lowest(weights.reshape(-1), flat_mask, round(0.25 * (1 + np.cos(0.1 * np.pi)) * 34))] = False
    empty = ~mask.any(1)
    assert empty.any()
    mask[empty, slopes[empty].argmax(1)] = True
    flat_mask[lowest(-slopes.reshape(-1), ~flat_mask, 34 - mask.sum())] = True
    np.testing.assert_array_equal(groups(masks["w"][2]), mask)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2**31 - 1),
    st.integers(1, 999),
    st.integers(0, 999),
    st.sampled_from([(0, 7, 1, 1), (3, 18, 5, 3), (100, 90_000, 100, 3), (5, 1_000_000, 999, 2)]),
    st.integers(0, 10**6),
)
def test_numbers_of_weights_are_exact_in_pools_of_any_size(count, final, initial, times, at):
    begin, end, every, power = times
    initial = min(initial, final)
    schedule = sparse.polynomial(final / 1000, begin, end, every, power, initial / 1000)
    step = min(begin + every * at, end)
    assert schedule.due(jnp.int32(step))
    left = Fraction(end - step, end - begin) ** power
    exact = count * (1 - (1 - Fraction(initial, final)) * left)
    found = int(schedules.removed(schedule, jnp.int32(step), count))
    assert found == math.ceil(exact) or (found < exact < found + Fraction(2, 10_000))
    assert int(schedules.removed(schedule, jnp.int32(end), count)) == count
    assert int(schedules.removed(schedule, jnp.int32(begin - 1), count)) == 0


def test_a_share_lies_between_its_steps_and_rounds_are_exact():
    schedule = sparse.iterative(0.2, rounds=20, round_steps=100, rewind_step=10)
    count = 2**31 - 1
    for r in range(21):
        exact = count * (1 - Fraction(4, 5) ** r) / (1 - Fraction(4, 5) ** 20)
        step = jnp.int32(99 + 92 * r)  # before the change of round r + 1
        assert int(schedules.removed(schedule, step, count)) == math.ceil(exact)
    shot = sparse.one_shot(0.5, at=3)
    assert [int(schedules.removed(shot, jnp.int32(t), count)) for t in (2, 3, 9)] == [0, count, count]


def test_between_changes_nothing_of_the_size_of_weights_is_copied():
    """In the compiled step, with donated buffers: the old mask, moments and the snapshot stay where they are."""
    params = {"w": jnp.ones((96, 64))}
    adam = optax.adam(RATE)
    for rule, schedule in (
        (sparse.magnitude(), sparse.cubic(0.5, 0, 100)),
        (sparse.rigl(), sparse.constant(0.5, 100, 1000)),
        (sparse.magnitude(), sparse.iterative(0.2, 2, 50)),
    ):
        tx = sparse.sparsify(adam, rule, schedule)

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params, state, grads, tx=tx):
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        text = step.lower(params, tx.init(params), params).compile().as_text()
        _, entry = re.split(r"\n(?=ENTRY )", text)
        assert "f32[96,64]" in entry and not re.findall(r"f32\[96,64\]\S* copy\(", entry), rule


def test_the_program_of_the_page_runs(tmp_path, capsys):
    page = (Path(__file__).resolve().parents[2] / "docs" / "sparsity.md").read_text()
    program = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    assert len(program.splitlines()) < 40
    (tmp_path / "program.py").write_text(program)
    with jax.numpy_rank_promotion("allow"):  # as it is outside of these tests
        names = runpy.run_path(str(tmp_path / "program.py"))
    printed = re.findall(r"step (\d+), sparsity (\d\.\d{4}), loss (\d\.\d{4})", capsys.readouterr().out)
    assert [int(step) for step, _, _ in printed] == [200, 400, 600, 800, 1000]
    last = [150, 350, 550, 600, 600]  # the last step with a new mask; 1843 of 2048 weights go in the end
    gone = [np.ceil(1843 * (1 - (1 - (t - 100) / 500) ** 3) - 1e-6) for t in last]
    assert [s for _, s, _ in printed] == [f"{n / 2048:.4f}" for n in gone]
    assert float(printed[-1][2]) < 0.01
    zeros = sum(int(jnp.sum(names["params"][layer]["w"] == 0)) for layer in ("in", "out"))
    assert zeros == 1843


def test_without_optax_the_import_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("lotto_jax.pruning.optax")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(ModuleNotFoundError, match=r"lotto_jax\.pruning\.optax needs optax; pip install optax"):
        importlib.import_module("lotto_jax.pruning.optax")


def test_a_sparsity_that_groups_of_a_pattern_cannot_reach_is_refused():
    two_of_four = {"pattern": pruning.patterns.nm(2, 4)}
    params = {"a": {"kernel": jnp.ones((8, 64))}, "b": {"kernel": jnp.ones((8, 8))}, "c": {"kernel": jnp.ones((3, 8))}}
    for distribution in ("global", "uniform"):  # of 3 inputs 2 stay: more than half, which is no mistake
        sparse.sparsify(OPTIMIZER, sparse.magnitude(distribution), sparse.constant(0.5), **two_of_four).init(params)
    for rule, said in (
        (sparse.magnitude(), "The network would keep 150 weights .* the pattern keeps 288 of them or more"),
        (sparse.magnitude("uniform"), "a/kernel would keep 128 weights .* the pattern keeps 256 of them or more"),
    ):
        tx = sparse.sparsify(OPTIMIZER, rule, sparse.cubic(0.75, 0, 10), **two_of_four)
        with pytest.raises(ValueError, match=f"^{said}; lower the sparsity\\.$"):
            tx.init(params)
    tx = sparse.sparsify(OPTIMIZER, sparse.rigl(), sparse.constant(0.5, end=9), **two_of_four)
    with pytest.raises(ValueError, match=r"lower the sparsity, or give the distribution 'uniform'\.$"):
        tx.init(params)


def test_what_does_not_fit_is_said_in_one_sentence():
    params, grads = draws()
    first = jax.tree.map(lambda x: x[0], grads)
    tx = sparse.sparsify(OPTIMIZER, sparse.magnitude({"c/.*": 0.5}), sparse.constant(0.5))
    with pytest.raises(ValueError, match=r"'c/\.\*' matches no prunable leaf; there are a/kernel, b/kernel"):
        tx.init(params)
    with pytest.raises(ValueError, match="give constant"):
        sparse.sparsify(OPTIMIZER, sparse.rigl(), sparse.constant(0.5))
    tx = sparse.sparsify(OPTIMIZER, sparse.magnitude(), sparse.constant(0.5))
    with pytest.raises(ValueError, match="update got no params"):
        tx.update(first, tx.init(params))
    with pytest.raises(ValueError, match="no prunable leaf"):
        tx.init({"bias": jnp.ones(3)})
    for name, arguments in (
        ("rule", (sparse.magnitude, sparse.constant(0.5))),
        ("schedule", (sparse.magnitude(), 0.5)),
    ):
        with pytest.raises(TypeError, match=f"^{name} is .*give one that the library makes"):
            sparse.sparsify(OPTIMIZER, *arguments)
    with pytest.raises(TypeError, match=r"^pattern is '2:4'.*patterns\.nm\(2, 4\)"):
        sparse.sparsify(OPTIMIZER, sparse.magnitude(), sparse.constant(0.5), pattern="2:4")
    with pytest.raises(ValueError, match="holds 0 states of sparsify"):
        sparse.mask_of(OPTIMIZER.init(params))
    with pytest.raises(ValueError, match="end is 3, which is not after begin=3"):
        sparse.cubic(0.5, begin=3, end=3)
    with pytest.raises(ValueError, match="every is 0; it must be 1 or more"):
        sparse.constant(0.5, every=0)
    with pytest.raises(ValueError, match="takes a rule that removes weights"):
        sparse.straight_through(sparse.static())
