"""With 64-bit types enabled every public function works, and float64 scores are compared in full precision."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lotto_jax import pruning
from lotto_jax.pruning import selection
from tests.pruning.test_prune import SHAPES, expected_in_tree_order, mask_of, oracle, prunable_leaves, tree

DTYPES = ("float64", "float32", "bfloat16")


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True):
        yield


# Neighbours in float64 that are one number in float32, and what sorts in a special way.
close = st.integers(-4, 4).map(lambda i: 1.0 + i * 2.0**-52)
special = st.sampled_from([0.0, -0.0, np.inf, -np.inf, np.nan, 1e300, -1e300, 5e-324, -5e-324])
values = st.one_of(close, close.map(lambda x: -x), special, st.floats(allow_nan=False, allow_subnormal=False))


@st.composite
def problems(draw, dtypes):
    sizes = [int(np.prod(s)) for s in SHAPES]
    flat = np.asarray(draw(st.lists(values, min_size=sum(sizes), max_size=sum(sizes))))
    alive = np.asarray(draw(st.lists(st.booleans(), min_size=sum(sizes), max_size=sum(sizes))))
    cuts = np.cumsum(sizes)[:-1]
    with np.errstate(over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a narrower type rounds large values to infinity
        parts = zip(np.split(flat, cuts), SHAPES, strict=True)
        scores = [jnp.asarray(part.reshape(shape)).astype(draw(st.sampled_from(dtypes))) for part, shape in parts]
    kept = [a.reshape(s) for a, s in zip(np.split(alive, cuts), SHAPES, strict=True)]
    return scores, kept, draw(st.integers(0, 100)) / 100


prune = {name: jax.jit(getattr(pruning, name)) for name in ("global_prune", "layerwise_prune", "prune_to_sparsity")}


@settings(max_examples=200, deadline=None)
@given(problems(["float64"]))
def test_pruning_by_float64_scores_is_the_oracle(problem):
    scores, kept, fraction = problem
    params, mask = tree(scores), mask_of(tree(scores), kept)
    alive, size = sum(int(m.sum()) for m in kept), sum(m.size for m in kept)
    pooled = prunable_leaves(prune["global_prune"](params, mask, fraction))
    for got, want in zip(pooled, expected_in_tree_order(scores, kept, round(fraction * alive)), strict=True):
        np.testing.assert_array_equal(got, want)
    missing = max(round(fraction * size) - (size - alive), 0)
    one_shot = prunable_leaves(prune["prune_to_sparsity"](params, mask, fraction))
    for got, want in zip(one_shot, expected_in_tree_order(scores, kept, missing), strict=True):
        np.testing.assert_array_equal(got, want)
    by_layer = prunable_leaves(prune["layerwise_prune"](params, mask, fraction))
    for got, score, own in zip(by_layer, scores, kept, strict=True):
        np.testing.assert_array_equal(got, oracle([score], [own], round(fraction * int(own.sum())))[0])


@settings(max_examples=50, deadline=None)
@given(problems(DTYPES))
def test_leaves_of_several_dtypes_are_pooled_exactly(problem):
    scores, kept, fraction = problem
    k = round(fraction * sum(int(m.sum()) for m in kept))
    pruned = prune["global_prune"](tree(scores), mask_of(tree(scores), kept), fraction)
    for got, want in zip(prunable_leaves(pruned), expected_in_tree_order(scores, kept, k), strict=True):
        np.testing.assert_array_equal(got, want)


def test_two_scores_that_float32_cannot_tell_apart():
    scores = {"kernel": jnp.asarray([[1.0 + 2.0**-52, 1.0, 1.0 + 2.0**-51]])}
    assert scores["kernel"].dtype == jnp.float64 and len(set(scores["kernel"].astype(jnp.float32).tolist()[0])) == 1
    pruned = pruning.global_prune(scores, pruning.ones(scores), 1 / 3)
    np.testing.assert_array_equal(pruned["kernel"], [[True, False, True]])
    channels = pruning.channel_mask({"scale": scores["kernel"][0]}, 1 / 3)
    np.testing.assert_array_equal(channels["scale"], [True, False, True])


def test_without_float64_scores_no_array_is_wider_than_32_bits():
    keys = selection.order_keys(jnp.ones((2, 2), jnp.bfloat16), jnp.ones((2, 2), bool))
    assert keys.dtype == jnp.uint32
    scores = [jnp.ones((2, 2), jnp.float32)]
    program = str(jax.make_jaxpr(lambda s: selection.lowest(s, [s[0] > 0], jnp.int32(1)))(scores))
    assert "u32[2,2]" in program and not re.search(r"u64|[if]64\[\d", program)  # scalars of clip are wide


def test_a_large_pool_of_float64_scores_is_split_exactly():
    scores = np.random.default_rng(1).normal(size=(400, 500)) * 1e-12 + 1.0  # 5 digits beyond float32's
    mask = {"kernel": jnp.ones(scores.shape, bool)}
    for fraction in (1e-5, 0.2, 0.9999, 1.0):
        pruned = np.asarray(prune["global_prune"]({"kernel": jnp.asarray(scores)}, mask, fraction)["kernel"])
        (want,) = oracle([scores], [np.ones_like(pruned)], round(fraction * scores.size))
        np.testing.assert_array_equal(pruned, want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_vmap_over_tickets_is_one_ticket_at_a_time(dtype):
    rng = np.random.default_rng(0)
    trees = [tree([jnp.asarray(rng.integers(0, 9, s), dtype) for s in SHAPES]) for _ in range(4)]
    masks, fractions = [pruning.ones(t) for t in trees], [0.0, 0.2, 0.5, 1.0]
    stacked = pruning.stack(trees), pruning.stack(masks), jnp.asarray(fractions)
    for name in prune:
        function = getattr(pruning, name)
        one = [function(*arguments) for arguments in zip(trees, masks, fractions, strict=True)]
        jax.tree.map(np.testing.assert_array_equal, jax.vmap(function)(*stacked), pruning.stack(one))


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_and_random_masks(dtype):
    params = tree([jnp.ones(s, dtype) for s in SHAPES])
    key = jax.random.key(0)
    scores = jax.jit(pruning.random_scores)(key, params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(scores)} == {"float32"}
    with jax.enable_x64(False):
        narrow = pruning.random_scores(key, params)
    jax.tree.map(np.testing.assert_array_equal, scores, narrow)
    mask = pruning.global_prune(scores, pruning.ones(params), 0.5)
    drawn = jax.jit(pruning.random_like)(key, mask)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.sum(), b.sum()), drawn, mask)
    both = jax.vmap(pruning.random_like, in_axes=(0, None))(jax.random.split(key), mask)
    assert both["encoder"]["kernel"].shape == (2, *SHAPES[0])
    kept = jax.jit(pruning.num_kept)(mask)
    assert kept.dtype == jnp.int32 and int(kept) == pruning.num_prunable(mask) - round(0.5 * 61) == 61 - 30
    share = jax.jit(pruning.sparsity)(mask)
    assert share.dtype == jnp.float32 and float(share) == pytest.approx(30 / 61)
    applied = jax.jit(pruning.apply)(pruning.magnitude(params), mask)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(applied)} == {dtype}
    assert sum(int((leaf != 0).sum()) for leaf in prunable_leaves(applied)) == 31
    jax.tree.map(np.testing.assert_array_equal, pruning.unpack(pruning.pack(mask), mask), mask)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_saliency_scores_have_the_precision_of_params(dtype):
    """L = sum w^3 over two batches of weight 1 and 3: g = 6 w^2, H = diag(12 w)."""
    w = np.linspace(-1, 1.5, 6).reshape(2, 3)
    params, batches = {"w": jnp.asarray(w, dtype)}, jnp.asarray([1.0, 3.0], dtype)
    loss = pruning.mean_over(lambda p, batch: batch * jnp.sum(p["w"] ** 3), batches)
    snip = jax.jit(lambda p: pruning.snip(loss, p))(params)["w"]
    grasp = jax.jit(lambda p: pruning.grasp(loss, p))(params)["w"]
    assert snip.dtype == grasp.dtype == dtype
    tolerance = 1e-14 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(snip, np.abs(w) ** 3 / np.sum(np.abs(w) ** 3), rtol=tolerance)
    np.testing.assert_allclose(grasp, w * 12 * w * 6 * w**2, rtol=tolerance, atol=tolerance)
    stacked = jax.tree.map(lambda p: jnp.stack([p, p]), params)
    both = jax.vmap(lambda p: pruning.grasp(loss, p))(stacked)["w"]
    np.testing.assert_allclose(both[1], grasp, rtol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_channel_masks_and_the_early_bird_scan(dtype):
    gamma = np.random.default_rng(0).normal(size=(6, 16))
    params = {"bn": {"scale": jnp.asarray(gamma[0], dtype), "bias": jnp.ones(16, dtype)}}
    scales = pruning.batch_norm_scales(params)
    mask = jax.jit(pruning.channel_mask)(scales, 0.25)
    order = np.argsort(np.abs(np.asarray(scales["bn/scale"], np.float64)), kind="stable")
    np.testing.assert_array_equal(np.flatnonzero(~np.asarray(mask["bn/scale"])), np.sort(order[:4]))
    assert int((pruning.apply_channel_mask(params, mask)["bn"]["bias"] == 0).sum()) == 4
    penalty = jax.jit(pruning.slimming_penalty)(scales, 0.5)
    assert float(penalty) == pytest.approx(0.5 * np.abs(np.asarray(scales["bn/scale"], np.float64)).sum(), rel=1e-2)

    detector = pruning.EarlyBird(lookback=3)
    history = jax.vmap(pruning.channel_mask, in_axes=(0, None))({"bn/scale": jnp.asarray(gamma, dtype)}, 0.25)
    state, found = jax.jit(lambda m: jax.lax.scan(detector.update, detector.init(mask), m))(history)
    assert int(state.seen) == 7 and not found.any()
    _, found = jax.lax.scan(detector.update, detector.init(mask), pruning.stack([mask] * 3))
    np.testing.assert_array_equal(found, [False, True, True])
    distance = jax.jit(pruning.mask_distance)(mask, {"bn/scale": ~mask["bn/scale"]})
    assert distance.dtype == jnp.float32 and float(distance) == 1.0


def test_axis_groups_and_compact_follow_a_float64_network():
    rng = np.random.default_rng(2)
    params = {
        "w": jnp.asarray(rng.normal(size=(5, 8))),
        "bn": {"scale": jnp.asarray(rng.normal(size=8)), "bias": jnp.asarray(rng.normal(size=8))},
        "out": jnp.asarray(rng.normal(size=(8, 3))),
    }

    def fn(p, x):
        return jax.nn.relu((x @ p["w"]) * p["bn"]["scale"][None] + p["bn"]["bias"][None]) @ p["out"]

    x = jnp.asarray(rng.normal(size=(4, 5)))
    (group,) = pruning.axis_groups(fn, params, x).prunable
    assert group.size == 8
    mask = pruning.channel_mask(pruning.batch_norm_scales(params), 0.5)
    masked = pruning.apply_channel_mask(params, mask)
    small = pruning.compact(fn, masked, mask, x)
    assert small.variables["w"].shape == (5, 4) and small.variables["w"].dtype == jnp.float64
    np.testing.assert_allclose(fn(small.variables, x), fn(masked, x), rtol=1e-13)
