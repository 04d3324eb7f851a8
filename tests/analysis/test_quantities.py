"""What is counted layer by layer, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax import pruning
from lotto_jax.analysis import dead_units, left, overlap, signs, travel

RNG = np.random.default_rng(0)
SHAPES = {"a": (7, 5), "b": (30, 20)}


def network():
    make = lambda shape: RNG.normal(size=shape).astype(np.float32)  # noqa: E731
    return {name: {"kernel": make(shape), "bias": make(shape[1:])} for name, shape in SHAPES.items()}


def mask(share):
    return {name: {"kernel": RNG.random(shape) < share, "bias": np.True_} for name, shape in SHAPES.items()}


def both(x, y):
    """`{layer: value of stacked kernels}`, flat; `all` is both kernels."""
    flat = {f"{name}/kernel": [np.ravel(tree[name]["kernel"]) for tree in (x, y)] for name in SHAPES}
    return flat | {"all": [np.concatenate(parts) for parts in zip(*flat.values(), strict=True)]}


def test_overlap_is_the_jaccard_index_and_chance_gives_what_is_expected():
    a, b = mask(0.5), mask(0.2)
    found = overlap.overlap(a, b)
    for layer, (x, y) in both(a, b).items():
        assert float(found[layer].jaccard) == pytest.approx(np.sum(x & y) / np.sum(x | y))
    shuffled = jax.jit(lambda key: overlap.overlap(pruning.random_like(key, a), b)["b/kernel"].jaccard)
    by_chance = np.mean([shuffled(jax.random.key(seed)) for seed in range(100)])
    assert float(found["b/kernel"].expected) == pytest.approx(by_chance, rel=0.02)
    assert float(overlap.overlap(a, a)["all"].jaccard) == 1
    # Masks of layers as full and as empty are at chance, though they agree in most of the network.
    full = {
        "a": {"kernel": np.ones((7, 5), bool), "bias": np.True_},
        "b": a["b"] | {"kernel": np.zeros((30, 20), bool)},
    }
    assert overlap.overlap(full, full)["all"] == (1, 1) and np.isnan(overlap.overlap(full, full)["b/kernel"].jaccard)


def test_signs_distances_and_counts_are_of_kept_weights():
    x, y, kept = network(), network(), mask(0.4)
    agree, way, counts = signs.agreement(x, y, kept), travel.distance(x, y, kept), left.weights(kept)
    chosen = both(kept, kept)
    for layer, (p, q) in both(x, y).items():
        here = chosen[layer][0]
        assert float(agree[layer]) == pytest.approx(np.mean(np.sign(p[here]) == np.sign(q[here])))
        assert float(way[layer].euclidean) == pytest.approx(np.linalg.norm(p[here] - q[here]), rel=1e-5)
        relative = np.linalg.norm(p[here] - q[here]) / np.linalg.norm(p[here])
        assert float(way[layer].relative) == pytest.approx(relative, rel=1e-5)
        assert int(counts[layer]) == here.sum()


def test_a_component_that_is_not_pruned_does_not_count():
    half = mask(0.4) | {"b": {"kernel": np.True_, "bias": np.True_}}
    assert set(left.weights(half)) == set(signs.agreement(network(), network(), half)) == {"a/kernel", "all"}


@jax.custom_jvp
def own_relu(x):
    return jnp.maximum(x, 0)


own_relu.defjvps(lambda tangent, output, x: tangent * (output > 0))


def test_dead_units_are_found_in_whatever_way_they_are_written():
    x = RNG.normal(size=(6, 4, 3)).astype(np.float32)  # batch, positions, units
    shift = np.float32([0, -9, 0])

    def function(x, shift):
        with jax.named_scope("block"):
            first = jax.jit(jax.nn.relu)(x + shift)
            second = own_relu(x - shift)
        third = jnp.maximum(jax.nn.leaky_relu(x + shift), 0.0)
        return jnp.sum(first + second) + jnp.sum(third) + jnp.max(x) + jnp.sum(jnp.maximum(x, 1.0))

    with jax.numpy_rank_promotion("allow"):
        found = jax.jit(lambda *xs: dead_units.highest(function, *xs))(x, shift)
    expected = {"block/relu": x + shift, "block/relu_1": x - shift, "relu": x + shift}
    assert found.keys() == expected.keys()
    for layer, value in expected.items():
        np.testing.assert_allclose(found[layer], np.maximum(value, 0).max((0, 1)), rtol=1e-6)
    assert [int(np.sum(found[layer] <= 0)) for layer in expected] == [1, 0, 1]
