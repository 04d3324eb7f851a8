"""Shuffled epochs without storing an order: a keyed bijection of the example numbers, evaluated where it is needed.

A Feistel network permutes the smallest power of two that holds them all, and walks a value along its cycle until it is
an example number (cycle walking; Black & Rogaway 2002). The order of any epoch is a function of its key, so a run can
resume at any step, and a step computes only the numbers of its batch.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Key, UInt32

ROUNDS = 8


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """A finalizer with good avalanche (the constants of MurmurHash3)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def shuffled(key: Key[Array, ""], position: Int[Array, "batch"], n: int) -> Int[Array, "batch"]:
    """Element number `position` of the permutation of `range(n)` that belongs to `key`, int32.

    Args:
      key: a typed key; another one gives another permutation.
      position: each in [0, n).
      n: number of elements.
    """
    bits = max((n - 1).bit_length(), 2)
    low_bits = bits // 2
    low_mask, high_mask = jnp.uint32((1 << low_bits) - 1), jnp.uint32((1 << (bits - low_bits)) - 1)
    round_keys = jax.random.bits(key, (ROUNDS,), jnp.uint32)

    def permute(x: UInt32[Array, "batch"]) -> UInt32[Array, "batch"]:
        low, high = x & low_mask, x >> low_bits
        for r in range(0, ROUNDS, 2):
            high = high ^ (_mix(low ^ round_keys[r]) & high_mask)
            low = low ^ (_mix(high ^ round_keys[r + 1]) & low_mask)
        return (high << low_bits) | low

    start = permute(position.astype(jnp.uint32))
    walked = lax.while_loop(lambda x: jnp.any(x >= n), lambda x: jnp.where(x >= n, permute(x), x), start)
    return walked.astype(jnp.int32)
