"""Random streams: no two streams, salts or steps share a key."""

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lotto_jax.training.streams import Stream, key

index = st.one_of(st.integers(0, 20), st.integers(0, 2**32 - 1))
use = st.tuples(st.integers(0, 2**31 - 1) | st.integers(0, 3), st.sampled_from(Stream), st.lists(index, max_size=2))


@settings(max_examples=60, deadline=None)
@given(st.lists(use, min_size=2, max_size=12, unique_by=str))
def test_no_two_streams_salts_or_steps_share_a_key(uses):
    made = {}
    for seed, stream, indices in uses:
        data = np.asarray(jax.random.key_data(key(jax.random.key(seed), stream, *map(np.uint32, indices))))
        other = made.setdefault(data.tobytes(), (seed, stream, indices))
        assert other == (seed, stream, indices)


def test_small_indices_of_every_stream_are_disjoint_from_each_other_and_from_the_ticket_itself():
    """The salts, steps and epochs that runs really use, which once met: initialization 1 was the noise of a step."""
    root = jax.random.key(0)
    own = jax.jit(jax.vmap(lambda i, stream=0: jax.random.key_data(jax.random.fold_in(root, i))))(np.arange(300))
    keys = {bytes(np.asarray(x)) for x in own} | {bytes(np.asarray(jax.random.key_data(root)))}
    count = len(keys)
    for stream in Stream:
        made = jax.jit(jax.vmap(lambda i, s=stream: jax.random.key_data(key(root, s, i))))(np.arange(300))
        keys |= {bytes(np.asarray(x)) for x in made}
    assert len(keys) == count + 300 * len(Stream)
