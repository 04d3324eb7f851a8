"""Exact pruning against a float64 numpy oracle, by property: jitted, vmapped and sharded alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lotto_jax import pruning

SHAPES = [(4, 6), (3, 2, 5), (7, 1)]


def oracle(scores, kept, k):
    """Stable sort in float64: the first k of the kept entries are removed. NaN sorts as the lowest score."""
    flat = np.concatenate([np.asarray(s, np.float64).reshape(-1) for s in scores])
    alive = np.concatenate([np.asarray(m).reshape(-1) for m in kept])
    flat = np.where(np.isnan(flat), -np.inf, flat)
    nan_first = np.where(np.concatenate([np.isnan(np.asarray(s, np.float64)).reshape(-1) for s in scores]), 0, 1)
    order = np.lexsort((np.arange(flat.size), flat, nan_first))
    order = order[alive[order]]
    alive[order[:k]] = False
    sizes = np.cumsum([np.size(m) for m in kept])[:-1]
    return [part.reshape(np.shape(m)) for part, m in zip(np.split(alive, sizes), kept, strict=True)]


def tree(leaves):
    """Nested params with a bias and a 0-d leaf that are never pruned."""
    return {
        "encoder": {"kernel": leaves[0], "bias": jnp.zeros(6, leaves[0].dtype)},
        "decoder": {"kernel": leaves[1], "scale": jnp.ones((), leaves[0].dtype), "out": leaves[2]},
    }


def prunable_leaves(mask):
    return [mask["encoder"]["kernel"], mask["decoder"]["kernel"], mask["decoder"]["out"]]


def mask_of(params, kept):
    mask = pruning.ones(params)
    mask["encoder"]["kernel"], mask["decoder"]["kernel"], mask["decoder"]["out"] = map(jnp.asarray, kept)
    return mask


def expected_in_tree_order(scores, kept, k):
    """The oracle pools leaves in the order of `jax.tree.leaves`: decoder before encoder."""
    order = [1, 2, 0]
    result = oracle([scores[i] for i in order], [kept[i] for i in order], k)
    return [result[order.index(i)] for i in range(3)]


special = st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-42, 3.4e38])
values = st.one_of(special, st.floats(width=32, allow_nan=False), st.integers(-3, 3).map(float))


@st.composite
def problems(draw):
    dtype = draw(st.sampled_from(["float32", "bfloat16", "float16"]))
    size = sum(int(np.prod(s)) for s in SHAPES)
    flat = np.asarray(draw(st.lists(values, min_size=size, max_size=size)), np.float32)
    alive = np.asarray(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    cuts = np.cumsum([int(np.prod(s)) for s in SHAPES])[:-1]
    with np.errstate(over="ignore"):  # float16 rounds large values to infinity
        scores = [jnp.asarray(f.reshape(s), dtype) for f, s in zip(np.split(flat, cuts), SHAPES, strict=True)]
    kept = [a.reshape(s) for a, s in zip(np.split(alive, cuts), SHAPES, strict=True)]
    return scores, kept, draw(st.integers(0, 100)) / 100


@settings(max_examples=200, deadline=None)
@given(problems())
def test_global_prune_is_the_oracle(problem):
    scores, kept, fraction = problem
    params = tree(scores)
    mask = mask_of(params, kept)
    alive = sum(int(m.sum()) for m in kept)
    k = round(fraction * alive)
    pruned = pruning.global_prune(params, mask, fraction)
    for got, want in zip(prunable_leaves(pruned), expected_in_tree_order(scores, kept, k), strict=True):
        np.testing.assert_array_equal(got, want)
    assert int(pruning.num_kept(pruned)) == alive - k
    assert pruned["encoder"]["bias"].shape == () and bool(pruned["encoder"]["bias"])


@settings(max_examples=50, deadline=None)
@given(problems())
def test_layerwise_prune_is_the_oracle_on_each_leaf(problem):
    scores, kept, fraction = problem
    params = tree(scores)
    pruned = pruning.layerwise_prune(params, mask_of(params, kept), fraction)
    for got, score, alive in zip(prunable_leaves(pruned), scores, kept, strict=True):
        np.testing.assert_array_equal(got, oracle([score], [alive], round(fraction * int(alive.sum())))[0])


@settings(max_examples=50, deadline=None)
@given(problems())
def test_prune_to_sparsity_prunes_what_is_missing(problem):
    scores, kept, sparsity = problem
    params = tree(scores)
    size, alive = sum(m.size for m in kept), sum(int(m.sum()) for m in kept)
    k = max(round(sparsity * size) - (size - alive), 0)
    pruned = pruning.prune_to_sparsity(params, mask_of(params, kept), sparsity)
    for got, want in zip(prunable_leaves(pruned), expected_in_tree_order(scores, kept, k), strict=True):
        np.testing.assert_array_equal(got, want)


def test_vmap_over_tickets_is_one_ticket_at_a_time():
    rng = np.random.default_rng(0)
    # Few distinct values, so that every ticket has ties at its threshold.
    trees = [tree([jnp.asarray(rng.integers(0, 9, s), jnp.float32) for s in SHAPES]) for _ in range(5)]
    fractions = jnp.asarray([0.0, 0.2, 0.5, 0.77, 1.0])
    one = [pruning.global_prune(t, pruning.ones(t), f) for t, f in zip(trees, fractions, strict=True)]
    many = jax.vmap(pruning.global_prune)(
        pruning.stack(trees), pruning.stack([pruning.ones(t) for t in trees]), fractions
    )
    jax.tree.map(np.testing.assert_array_equal, many, pruning.stack(one))


@settings(max_examples=50, deadline=None)
@given(problems())
def test_sharded_leaves_are_pruned_as_the_oracle_says(problem):
    """Leaves split along different axes or not at all; ties, zeros, infinities and pruned entries as above."""
    scores, kept, fraction = problem
    devices = Mesh(np.array(jax.devices()[:2]), ("data",))
    splits = [NamedSharding(devices, spec) for spec in (P("data"), P(None, "data"), P())]
    scores = [jax.device_put(s, split) for s, split in zip(scores, splits, strict=True)]
    mask = mask_of(tree(scores), kept)
    k = round(fraction * sum(int(m.sum()) for m in kept))
    pruned = jax.jit(pruning.global_prune)(tree(scores), mask, fraction)
    for got, want in zip(prunable_leaves(pruned), expected_in_tree_order(scores, kept, k), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_large_pool_is_split_exactly():
    scores = {"kernel": jax.random.normal(jax.random.key(1), (1000, 700))}
    flat = np.asarray(scores["kernel"]).reshape(-1)
    mask = pruning.ones(scores)
    for fraction in (1e-6, 0.001, 0.2, 0.5, 0.9999, 1.0):
        k = round(fraction * flat.size)
        pruned = np.asarray(pruning.global_prune(scores, mask, fraction)["kernel"]).reshape(-1)
        assert (~pruned).sum() == k
        if 0 < k < flat.size:
            assert flat[~pruned].max() <= flat[pruned].min()


def test_twenty_rounds_compile_once_and_reach_the_papers_sparsity():
    compiled = 0

    @jax.jit
    def prune(params, mask, fraction):
        nonlocal compiled
        compiled += 1
        return pruning.global_prune(pruning.magnitude(params), mask, fraction)

    params = {"kernel": jax.random.normal(jax.random.key(2), (100, 100))}
    mask, kept = pruning.ones(params), 10_000
    for r in range(20):
        previous, mask = mask, prune(params, mask, jnp.float32(0.2 + r * 0))
        kept -= round(0.2 * kept)
        assert int(pruning.num_kept(mask)) == kept
        assert not bool(jnp.any(mask["kernel"] & ~previous["kernel"]))  # nothing revived
    assert compiled == 1
    assert float(pruning.sparsity(mask)) == pytest.approx(1 - 0.8**20, abs=1e-3)


def test_a_fraction_in_float32_is_the_decimal_number_it_stands_for():
    """As Python rounds: float32(0.1) * 5 is a little over one half, but round(0.1 * 5) is 0. Every hundredth, to 60."""
    scores = {"kernel": jnp.arange(60.0).reshape(1, 60)}
    sizes, fractions = np.meshgrid(np.arange(60), np.arange(101) / 100)
    masks = {"kernel": jnp.asarray(np.arange(60) < sizes.reshape(-1, 1, 1))}
    prune = jax.jit(jax.vmap(pruning.global_prune, in_axes=(None, 0, 0)))
    pruned = prune(scores, masks, jnp.asarray(fractions.reshape(-1), jnp.float32))
    removed = np.asarray(jnp.sum(masks["kernel"], (1, 2)) - jnp.sum(pruned["kernel"], (1, 2)))
    expected = [round(float(f) * int(n)) for f, n in zip(fractions.flat, sizes.flat, strict=True)]
    np.testing.assert_array_equal(removed, expected)


def test_all_pruned_and_nothing_prunable_stay_as_they_are():
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    empty = jax.tree.map(lambda m: m & (m.ndim == 0), pruning.ones(params))
    jax.tree.map(np.testing.assert_array_equal, pruning.global_prune(params, empty, 0.5), empty)
    biases = {"bias": jnp.ones(3), "scalar": jnp.ones(())}
    jax.tree.map(
        np.testing.assert_array_equal,
        pruning.global_prune(biases, pruning.ones(biases), 0.5),
        pruning.ones(biases),
    )


def test_nan_scores_raise_where_they_can_and_go_first_where_not():
    scores = {"kernel": jnp.asarray([[3.0, jnp.nan, 1.0, -jnp.inf]])}
    mask = pruning.ones(scores)
    with pytest.raises(ValueError, match="'kernel' hold NaN"):
        pruning.global_prune(scores, mask, 0.5)
    pruned = jax.jit(pruning.global_prune)(scores, mask, 0.25)
    np.testing.assert_array_equal(pruned["kernel"], [[True, False, True, True]])
    already = {"kernel": ~jnp.isnan(scores["kernel"])}  # a pruned NaN takes no part
    np.testing.assert_array_equal(pruning.global_prune(scores, already, 1 / 3)["kernel"], [[True, False, True, False]])


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_fraction_outside_its_range_is_refused(fraction):
    scores = {"kernel": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match=r"fraction must lie in \[0, 1\]"):
        pruning.global_prune(scores, pruning.ones(scores), fraction)


def test_integer_scores_are_refused():
    mask = pruning.ones({"kernel": jnp.ones((2, 2))})
    with pytest.raises(ValueError, match=r"'kernel' are int32.*give floating scores"):
        pruning.global_prune({"kernel": jnp.ones((2, 2), jnp.int32)}, mask, 0.5)


def test_random_like_keeps_the_sparsity_of_every_leaf_and_moves_the_entries():
    params = tree([jax.random.normal(jax.random.key(3), s) for s in [(40, 6), (30, 2, 5), (70, 1)]])
    mask = pruning.global_prune(pruning.magnitude(params), pruning.ones(params), 0.6)
    shuffled = pruning.random_like(jax.random.key(4), mask)
    for a, b in zip(prunable_leaves(mask), prunable_leaves(shuffled), strict=True):
        assert int(a.sum()) == int(b.sum())
    assert any(bool(jnp.any(a != b)) for a, b in zip(*map(prunable_leaves, (mask, shuffled)), strict=True))


def sorted_sizes(jaxpr) -> list[int]:
    """How many entries each sort in a jaxpr orders, in the jaxprs that it calls too."""
    sizes = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "sort":
            sizes.append(eqn.invars[0].aval.size)
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns"):
                sizes += sorted_sizes(getattr(inner, "jaxpr", inner))
    return sizes


def test_random_like_sorts_nothing_but_a_sample():
    """A sort of all entries takes a TPU minutes to compile."""
    mask = {"kernel": jnp.ones((300, 100), bool)}
    sizes = sorted_sizes(jax.make_jaxpr(pruning.random_like)(jax.random.key(0), mask).jaxpr)
    assert sizes and max(sizes) < 5000


@pytest.mark.parametrize("kept", [0, 1, 17, 59, 60])
def test_random_like_keeps_the_count_jitted_vmapped_and_sharded(kept):
    mask = {
        "kernel": (jnp.arange(60) < kept).reshape(4, 3, 5),
        "empty": jnp.ones((0, 2), bool),
        "bias": jnp.asarray(True),
    }
    keys = jax.random.split(jax.random.key(5), 8)
    one = [pruning.random_like(key, mask) for key in keys]
    assert [int(m["kernel"].sum()) for m in one] == [kept] * 8
    many = jax.vmap(pruning.random_like, in_axes=(0, None))(keys, mask)
    jax.tree.map(np.testing.assert_array_equal, many, pruning.stack(one))
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:2]), ("data",)), P("data"))
    split = {**mask, "kernel": jax.device_put(mask["kernel"], sharding)}
    jax.tree.map(np.testing.assert_array_equal, pruning.random_like(keys[0], split), one[0])


def test_random_like_keeps_every_entry_and_every_pair_equally_often():
    """12 of 40 kept, 4,000 draws: an entry is kept in 12/40 of them, two entries together in (12 * 11) / (40 * 39)."""
    mask = {"kernel": (jnp.arange(40) < 12).reshape(8, 5)}
    draws = jax.vmap(pruning.random_like, in_axes=(0, None))(jax.random.split(jax.random.key(6), 4000), mask)
    kept = np.asarray(draws["kernel"]).reshape(4000, 40).astype(float)
    single, pair = 12 / 40, (12 * 11) / (40 * 39)
    together = kept.T @ kept / 4000
    deviation = np.abs(np.diag(together) - single) / np.sqrt(single * (1 - single) / 4000)
    assert deviation.max() < 4.5
    apart = together[~np.eye(40, dtype=bool)]
    assert np.abs(apart - pair).max() / np.sqrt(pair * (1 - pair) / 4000) < 5


def test_random_scores_differ_between_leaves_and_keys():
    params = {"a": jnp.zeros((8, 8)), "b": jnp.zeros((8, 8))}
    first, second = (pruning.random_scores(jax.random.key(s), params) for s in (0, 1))
    assert not np.array_equal(first["a"], first["b"]) and not np.array_equal(first["a"], second["a"])
