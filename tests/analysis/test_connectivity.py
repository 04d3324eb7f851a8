"""Barriers of networks whose lines are known: the same network, a permuted copy, and that copy aligned again."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lotto_jax import pruning
from lotto_jax.analysis import connectivity, matching
from lotto_jax.objectives import reconstruction
from lotto_jax.objectives.state import Batch


def forward(params, x):
    return jax.nn.relu(x @ params["in"]["kernel"] + params["in"]["bias"]) @ params["out"]["kernel"]


@pytest.fixture(scope="module")
def trained():
    """A network, inputs, and what it computes there, which is what its loss compares with."""
    rng = np.random.default_rng(0)
    make = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    params = {"in": {"kernel": make(5, 9), "bias": make(9)}, "out": {"kernel": make(9, 4)}}
    x = make(40, 5)
    with jax.numpy_rank_promotion("allow"):
        return params, x, np.asarray(forward(params, x))


def height(a, b, x, target):
    loss = lambda params: jnp.mean((forward(params, x) - target) ** 2)  # noqa: E731
    with jax.numpy_rank_promotion("allow"):
        losses = jax.vmap(loss)(connectivity.line(a, b))
    return float(connectivity.barrier(losses)), np.asarray(losses)


def test_a_network_and_itself_have_no_barrier(trained):
    assert height(trained[0], *trained)[0] == 0


def test_a_permuted_copy_is_behind_a_barrier_until_it_is_aligned(trained):
    params, x, target = trained
    with jax.numpy_rank_promotion("allow"):
        groups = pruning.axis_groups(forward, params, x).prunable
    permuted = matching.permute(params, groups, [np.roll(np.arange(9), 4)])
    found, losses = height(params, permuted, x, target)
    assert losses[0] == 0 and losses[-1] < 1e-10  # the same function
    assert found > 0.5
    aligned = matching.permute(permuted, groups, matching.match(groups, permuted, params))
    assert height(params, aligned, x, target)[0] == 0


def test_the_line_has_both_ends_exactly_and_shares_between():
    a, b = {"w": jnp.float32([1e8, 1.0])}, {"w": jnp.float32([1.0, 3.0])}
    line = np.asarray(connectivity.line(a, b, 5)["w"])
    np.testing.assert_array_equal(line[[0, -1]], [a["w"], b["w"]])
    np.testing.assert_allclose(line[:, 1], [1, 1.5, 2, 2.5, 3])


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([1, 2, 3], 0), ([3, 2, 1], 0), ([1, 5, 3], 3), ([2, 2.5, 1], 1), ([1, 0, 1], 0), ([1, np.nan, 1], np.nan)],
)
def test_a_barrier_is_what_rises_above_the_line_between_the_ends(losses, expected):
    np.testing.assert_allclose(connectivity.barrier(jnp.float32(losses)), expected)


class Normed(nn.Module):
    """Four pixels through a batch norm."""

    @nn.compact
    def __call__(self, image, train):
        x = nn.Dense(3, name="encoder")(image.reshape(-1, 4))
        return nn.Dense(4, name="decoder")(nn.BatchNorm(not train, momentum=0.9)(x)).reshape(image.shape)


def test_batch_statistics_are_the_moving_average_at_fixed_weights():
    objective = reconstruction.make(Normed(), optax.adam(0.1), (2, 2, 1))
    key, rng = jax.random.key(0), np.random.default_rng(0)
    states = [objective.init(jax.random.key(seed)) for seed in (1, 2)]
    params, given = (pruning.stack([getattr(s, f) for s in states]) for f in ("params", "model_state"))
    image = rng.integers(0, 256, (50, 16, 2, 2, 1), np.uint8)
    batches = Batch(jnp.asarray(image), jnp.zeros((50, 16), jnp.int32))
    with jax.numpy_rank_promotion("allow"):
        found = connectivity.recomputed(objective, params, given, batches, key)["batch_stats"]["BatchNorm_0"]
    for i in range(2):
        dense = jax.tree.map(lambda x, i=i: np.asarray(x[i], np.float64), params["encoder"])
        mean, var = np.zeros(3), np.ones(3)
        for batch in image.reshape(50, 16, 4) / 255.0:
            x = batch @ dense["kernel"] + dense["bias"]
            mean, var = 0.9 * mean + 0.1 * x.mean(0), 0.9 * var + 0.1 * x.var(0)
        np.testing.assert_allclose(found["mean"][i], mean, rtol=1e-4)
        np.testing.assert_allclose(found["var"][i], var, rtol=1e-4)
