"""Scopes and patterns against float64 NumPy loops over entries, blocks and groups."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lotto_jax import pruning
from lotto_jax.pruning import patterns

SHAPES = {"a/kernel": (6, 10), "b/kernel": (3, 4, 8)}
SEEDS = st.integers(0, 2**32 - 1)
LAMP = jax.jit(pruning.lamp)
FRACTIONS = st.integers(0, 100).map(lambda x: x / 100)


def problem(seed, values=9):
    """Scores of few values, so that there are ties, and a mask of one block in four."""
    rng = np.random.default_rng(seed)
    scores = {name: rng.integers(0, values, s).astype(np.float32) for name, s in SHAPES.items()}
    kept = {name: rng.random(s) < 0.75 for name, s in SHAPES.items()}
    return scores, kept


def lowest(scores, count):
    """Of `[(score, place)]`, in order of places, the places of the lowest."""
    return [place for _, place in sorted(scores, key=lambda pair: pair[0])[:count]]


@settings(max_examples=25, deadline=None)
@given(SEEDS, FRACTIONS)
def test_lamp_is_equation_1_and_pools_all_leaves(seed, fraction):
    scores, kept = problem(seed)
    found, wanted = LAMP(scores, kept), []
    for name in SHAPES:
        left = [(float(scores[name][i]), i) for i in np.ndindex(SHAPES[name]) if kept[name][i]]
        left.sort(key=lambda pair: pair[0])
        for position, (score, place) in enumerate(left):
            rest = sum(s**2 for s, _ in left[position:])
            value = score**2 / rest if rest else 0.0
            np.testing.assert_allclose(found[name][place], value, rtol=1e-5)
            wanted.append((value, (name, place)))
        assert np.all(np.asarray(found[name])[~kept[name]] == 0)
    # Equal values of two leaves may round apart, so compare what is clearly below or above the threshold.
    pruned = pruning.scoped_prune(scores, kept, fraction, "lamp")
    count = round(fraction * len(wanted))
    assert int(pruning.num_kept(pruned)) == len(wanted) - count
    threshold = sorted(value for value, _ in wanted)[min(count, len(wanted) - 1)]
    for value, (name, place) in wanted:
        if abs(value - threshold) > 1e-4 * threshold:
            assert bool(pruned[name][place]) == (value > threshold)


def test_lamp_neither_overflows_nor_hides_nan():
    scores = {"w": jnp.asarray([[1e-30, 2e-30, np.nan], [3e-30, 0.0, 1e-30]])}
    found = np.asarray(LAMP(scores, pruning.ones(scores))["w"])
    assert np.isnan(found[0, 2])
    np.testing.assert_allclose(np.delete(found.reshape(-1), 2), [1 / 15, 4 / 13, 1, 0, 1 / 14], rtol=1e-5)


def blocks_of(shape, block):
    """Lists of places, one a block, in row-major order."""
    ranges = [[range(i, min(i + b, n)) for i in range(0, n, b)] for n, b in zip(shape, block, strict=True)]
    return [list(itertools.product(*axes)) for axes in itertools.product(*ranges)]


CUTS = {
    "blocks": (patterns.blocks(4, 4), {"a/kernel": (4, 4), "b/kernel": (1, 4, 4)}),
    "channels": (patterns.channels(-1), {"a/kernel": (6, 1), "b/kernel": (3, 4, 1)}),
    "heads": (patterns.heads(2), {"a/kernel": (6, 5), "b/kernel": (3, 4, 4)}),
}


@pytest.mark.parametrize("scope", ["global", "layerwise"])
@pytest.mark.parametrize("name", CUTS)
def test_blocks_go_whole_the_lowest_mean_first(name, scope):
    pattern, cut = CUTS[name]
    for seed, fraction in ((0, 0.0), (1, 0.3), (2, 0.5), (3, 1.0)):
        scores, kept = problem(seed)
        found, expected = [], {leaf: kept[leaf].copy() for leaf in SHAPES}
        for leaf in SHAPES:
            found.append([])
            for block in blocks_of(SHAPES[leaf], cut[leaf]):
                alive = [scores[leaf][place] for place in block if kept[leaf][place]]
                if alive:
                    found[-1].append((np.float32(np.sum(alive)) / np.float32(len(alive)), (leaf, block)))
        for pool in found if scope == "layerwise" else [[*found[0], *found[1]]]:
            for leaf, block in lowest(pool, round(fraction * len(pool))):
                for place in block:
                    expected[leaf][place] = False
        pruned = pruning.scoped_prune(scores, kept, fraction, scope, pattern)
        jax.tree.map(np.testing.assert_array_equal, pruned, expected)


@settings(max_examples=25, deadline=None)
@given(SEEDS, FRACTIONS)
def test_two_of_four_stay_in_every_group(seed, fraction):
    scores, kept = problem(seed)
    candidates, expected = [], {leaf: kept[leaf].copy() for leaf in SHAPES}
    for leaf, shape in SHAPES.items():
        block = (1,) * (len(shape) - 2) + (4, 1)
        places = set()
        for group in blocks_of(shape, block):
            alive = [(scores[leaf][place], place) for place in group if kept[leaf][place]]
            places |= set(lowest(alive, len(alive) - 2)) if len(alive) > 2 else set()
        candidates += [(scores[leaf][i], (leaf, i)) for i in np.ndindex(shape) if i in places]
    for leaf, place in lowest(candidates, round(fraction * sum(m.sum() for m in kept.values()))):
        expected[leaf][place] = False
    pruned = pruning.scoped_prune(scores, kept, fraction, pattern=patterns.nm(2, 4))
    jax.tree.map(np.testing.assert_array_equal, pruned, expected)


def test_a_dense_leaf_becomes_exactly_two_of_four_and_no_sparser():
    params = {"w": jax.random.normal(jax.random.key(0), (3, 8, 5))}
    mask = pruning.ones(params)
    for _ in range(6):
        mask = pruning.scoped_prune(pruning.magnitude(params), mask, 0.2, pattern=patterns.nm(2, 4))
    groups = np.asarray(mask["w"]).reshape(3, 2, 4, 5)
    assert np.all(groups.sum(2) == 2)
    weights = np.abs(np.asarray(params["w"])).reshape(3, 2, 4, 5)
    assert np.all(np.where(groups, weights, np.inf).min(2) >= np.where(groups, 0, weights).max(2))


def test_leaves_have_fractions_by_expression():
    scores, kept = problem(5, values=10**6)
    pruned = pruning.scoped_prune(scores, kept, {"a/.*": 0.5, "[ab]/kernel": 0.1}, "layerwise")
    for leaf, fraction in (("a/kernel", 0.5), ("b/kernel", 0.1)):
        alive = [(scores[leaf][i], i) for i in np.ndindex(SHAPES[leaf]) if kept[leaf][i]]
        expected = kept[leaf].copy()
        for place in lowest(alive, round(fraction * len(alive))):
            expected[place] = False
        np.testing.assert_array_equal(pruned[leaf], expected)
    only_a = pruning.scoped_prune(scores, kept, {"a/.*": 0.5}, "layerwise")
    np.testing.assert_array_equal(only_a["b/kernel"], kept["b/kernel"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.5, "local"), "scope is 'local'; it takes one of global, layerwise, lamp"),
        (({"a/.*": 0.5}, "global"), "the scope is 'global', not layerwise"),
        (({"c/.*": 0.5}, "layerwise"), r"'c/\.\*' matches no prunable leaf; there are a/kernel, b/kernel"),
        (({"a/.*": 1.5}, "layerwise"), r"fraction must lie in \[0, 1\], not 1.5"),
        ((0.5, "global", patterns.heads(3)), r"shape \(6, 10\) does not hold 3 heads"),
        ((0.5, "global", patterns.blocks(1, 2, 2)), r"need 3 axes, but a prunable leaf has shape \(6, 10\)"),
        ((0.5, "global", patterns.channels(2)), r"axis is 2, but a prunable leaf has shape \(6, 10\)"),
    ],
)
def test_what_does_not_fit_is_said(arguments, message):
    scores, kept = problem(0)
    with pytest.raises(ValueError, match=message):
        pruning.scoped_prune(scores, kept, *arguments)
    with pytest.raises(ValueError, match="n:m is 4:4"):
        patterns.nm(4, 4)
    with pytest.raises(ValueError, match=r"The sizes of blocks are \(0,\)"):
        patterns.blocks(0)
