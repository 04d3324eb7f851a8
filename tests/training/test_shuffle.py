"""The keyed permutation: a bijection for every size, different for every key, and without a preferred place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lotto_jax.training.shuffle import shuffled


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**31))
def test_every_element_comes_once(n, seed):
    places = jnp.minimum(jnp.arange(300), n - 1)  # one shape, so that operations compile once
    order = shuffled(jax.random.key(seed), places, n)[:n]
    assert sorted(order.tolist()) == list(range(n))


@pytest.mark.parametrize("n", [1437, 60_000, 2**16 + 1])
def test_dataset_sizes_are_permuted_and_batches_are_pieces_of_the_whole(n):
    key = jax.random.key(n)
    order = np.asarray(shuffled(key, jnp.arange(n), n))
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    np.testing.assert_array_equal(shuffled(key, jnp.arange(64, 128), n), order[64:128])
    assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 0.1


def test_every_element_is_as_likely_at_every_place():
    keys = jax.random.split(jax.random.key(0), 20_000)
    orders = np.asarray(jax.jit(jax.vmap(lambda key: shuffled(key, jnp.arange(10), 10)))(keys))
    counts = np.stack([(orders == value).sum(axis=0) for value in range(10)])
    # 100 counts, binomial(20000, 0.1): five standard deviations bound all of them with p < 1e-4.
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(20_000 * 0.1 * 0.9)
