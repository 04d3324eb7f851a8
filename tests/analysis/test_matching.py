"""Weight matching finds a permutation of channels that was made."""

import jax
import numpy as np
import pytest

from lotto_jax import pruning
from lotto_jax.analysis import matching


def forward(params, x):
    """Two layers, a residual block of width 7, a convolution flattened into a dense layer."""
    h = jax.nn.relu(x @ params["in"]["kernel"] + params["in"]["bias"])
    h = h + jax.nn.relu(h @ params["inner"]["kernel"]) @ params["outer"]["kernel"] + h @ params["square"]["kernel"]
    image = (h @ params["grid"]["kernel"]).reshape(-1, 2, 2, 4)
    image = jax.nn.relu(image + params["grid"]["shift"])
    return image.reshape(x.shape[0], -1) @ params["out"]["kernel"]


def network(seed):
    rng = np.random.default_rng(seed)
    make = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return {
        "in": {"kernel": make(5, 7), "bias": make(7)},
        "inner": {"kernel": make(7, 6)},
        "outer": {"kernel": make(6, 7)},
        "square": {"kernel": make(7, 7)},
        "grid": {"kernel": make(7, 16), "shift": make(4)},
        "out": {"kernel": make(16, 3)},
    }


def by_hand(params, residual, inner, maps):
    """The same network with its channels in another order, written out."""
    order = np.arange(16).reshape(4, 4)[:, maps].reshape(-1)  # four places, four maps
    return {
        "in": {"kernel": params["in"]["kernel"][:, residual], "bias": params["in"]["bias"][residual]},
        "inner": {"kernel": params["inner"]["kernel"][residual][:, inner]},
        "outer": {"kernel": params["outer"]["kernel"][inner][:, residual]},
        "square": {"kernel": params["square"]["kernel"][residual][:, residual]},
        "grid": {"kernel": params["grid"]["kernel"][residual][:, order], "shift": params["grid"]["shift"][maps]},
        "out": {"kernel": params["out"]["kernel"][order]},
    }


@pytest.fixture(scope="module")
def groups():
    with jax.numpy_rank_promotion("allow"):
        return pruning.axis_groups(forward, network(0), np.zeros((2, 5), np.float32)).prunable


def test_a_planted_permutation_is_found_exactly(groups):
    assert sorted(group.size for group in groups) == [4, 6, 7]
    params, rng = network(1), np.random.default_rng(2)
    for _ in range(5):
        planted = by_hand(params, *(rng.permutation(n) for n in (7, 6, 4)))
        found = matching.match(groups, planted, params)
        jax.tree.map(np.testing.assert_array_equal, matching.permute(planted, groups, found), params)


def test_a_permuted_network_computes_the_same(groups):
    params, x = network(1), np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    orders = [np.roll(np.arange(group.size), 1) for group in groups]
    with jax.numpy_rank_promotion("allow"):
        np.testing.assert_allclose(forward(matching.permute(params, groups, orders), x), forward(params, x), rtol=1e-4)


def test_noise_does_not_hide_the_permutation_and_masks_follow_it(groups):
    params, rng = network(1), np.random.default_rng(3)
    orders = [rng.permutation(n) for n in (7, 6, 4)]
    mask = jax.tree.map(lambda p: p > 0 if p.ndim > 1 else np.True_, params)
    noisy = jax.tree.map(lambda p: p + 0.05 * rng.normal(size=p.shape), by_hand(params, *orders))
    found = matching.match(groups, noisy, params)
    full = jax.tree.map(lambda m, p: np.broadcast_to(m, p.shape), mask, params)
    moved = jax.tree.map(lambda m, p: m if p.ndim > 1 else np.True_, by_hand(full, *orders), params)
    jax.tree.map(np.testing.assert_array_equal, matching.permute(moved, groups, found), mask)


def test_two_other_networks_come_closer_but_not_further(groups):
    a, b = network(4), network(5)
    distance = lambda x, y: sum(np.sum((p - q) ** 2) for p, q in zip(*map(jax.tree.leaves, (x, y)), strict=True))  # noqa: E731
    assert distance(matching.permute(b, groups, matching.match(groups, b, a)), a) < distance(b, a)
    assert all(np.array_equal(p, np.arange(len(p))) for p in matching.match(groups, a, a))


def test_what_does_not_fit_is_named(groups):
    params = network(0)
    with pytest.raises(ValueError, match=r"params have \(3,\) at 'in/bias', the reference \(7,\)"):
        matching.match(groups, {**params, "in": {**params["in"], "bias": np.zeros(3)}}, params)
    with pytest.raises(ValueError, match="There are 1 permutations for 3 groups"):
        matching.permute(params, groups, [np.arange(7)])
    with pytest.raises(ValueError, match="Permutation 0 does not hold each"):
        matching.permute(params, groups, [np.zeros(group.size, int) for group in groups])
