"""Exact selection of the k lowest scores of a pytree in O(n) passes of counting, without a sort.

Floats map to unsigned integers of the same order and size, and a guarded interpolation search over these keys finds a
threshold with exactly k keys below it. Counting sums leaf by leaf, so nothing is concatenated and sharded leaves stay
where they are. Ties at the threshold are broken by position.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt

from lotto_jax.pruning.masks import count_true

DECIMALS = 7  # of a fraction: what float32 resolves
SAMPLE = 4096  # keys sorted to guess where the threshold lies; any value gives the same result


def order_keys(scores: Float[Array, "..."], kept: Bool[Array, "..."], dtype: Any = jnp.float32) -> UInt[Array, "..."]:
    """Integers in the order of `scores`: NaN lowest, then -inf to +inf (-0 = +0), entries not kept highest.

    Args:
      scores: float array of any shape.
      kept: boolean array of the same shape.
      dtype: float32 or float64, in which the scores are compared; the integers have its number of bits.
    """
    unsigned = jnp.uint32 if dtype == jnp.float32 else jnp.uint64
    sign, infinity = (np.array(x, dtype).view(unsigned) for x in (-0.0, np.inf))
    bits = lax.bitcast_convert_type(scores.astype(dtype), unsigned)
    magnitude = bits & ~sign
    keys = jnp.where((bits >= sign) & (magnitude > 0), ~bits, magnitude | sign)
    keys = jnp.where(magnitude > infinity, unsigned(0), keys)
    return jnp.where(kept, keys, unsigned(np.iinfo(unsigned).max))


def _count_below(keys: list[Array], threshold: Array) -> Int[Array, ""]:
    """Number of keys below `threshold`, over all leaves."""
    return sum((count_true(leaf < threshold) for leaf in keys), jnp.zeros((), jnp.int32))


class _Search(NamedTuple):
    low: UInt[Array, ""]
    high: UInt[Array, ""]
    below: Int[Array, ""]  # keys below low
    weight_low: Float[Array, ""]
    weight_high: Float[Array, ""]
    up: Bool[Array, ""]  # whether the last probe became low
    counts: Int[Array, ""]  # made so far


def _threshold(keys: list[Array], k: Int[Array, ""]) -> tuple[Array, Array]:
    """A key with exactly k keys below it, or, where ties allow none, the tied key; and the number of keys below it.

    Invariant of the search: count(< low) <= k < count(< high). After two probes around the answer of a sorted sample it
    interpolates (regula falsi with the Illinois weights), and bisects if that has not ended after 32 counts; at most 64
    counts are made (96 of 64-bit keys), typically 6 to 9.
    """
    unsigned = keys[0].dtype
    floating = jnp.float32 if unsigned == jnp.uint32 else jnp.float64
    size = sum(leaf.size for leaf in keys)
    stride = max(1, size // SAMPLE)
    sample = jnp.sort(jnp.concatenate([leaf.reshape(-1)[::stride] for leaf in keys]))
    center = (k.astype(jnp.float32) * (sample.size / size)).astype(jnp.int32)
    spread = round(np.sqrt(sample.size))  # two standard deviations of the rank of a median
    first = sample[jnp.clip(center - spread, 0, sample.size - 1)]
    second = sample[jnp.clip(center + spread, 0, sample.size - 1)]

    def unfinished(s: _Search) -> Array:
        return (s.below != k) & (s.high - s.low > 1)

    def probe(s: _Search) -> _Search:
        width = s.high - s.low
        share = s.weight_low / (s.weight_low + s.weight_high)
        step = jnp.where(s.counts < 32, (width.astype(floating) * share.astype(floating)).astype(unsigned), width // 2)
        guess = jnp.where(s.counts == 0, first, jnp.where(s.counts == 1, second, s.low + step))
        guess = jnp.clip(guess, s.low + 1, s.high - 1)
        below = _count_below(keys, guess)
        up = below <= k
        distance = jnp.abs(k - below).astype(jnp.float32)
        # The end that stays put twice in a row counts half, so that both ends close in.
        stale = jnp.where(s.up == up, jnp.float32(0.5), jnp.float32(1.0))
        return _Search(
            low=jnp.where(up, guess, s.low),
            high=jnp.where(up, s.high, guess),
            below=jnp.where(up, below, s.below),
            weight_low=jnp.where(up, distance, s.weight_low * stale),
            weight_high=jnp.where(up, s.weight_high * stale, distance),
            up=up,
            counts=s.counts + 1,
        )

    start = _Search(
        low=jnp.asarray(0, unsigned),
        high=jnp.asarray(np.iinfo(unsigned).max, unsigned),
        below=jnp.int32(0),
        weight_low=k.astype(jnp.float32),
        weight_high=(size - k).astype(jnp.float32),
        up=jnp.bool_(True),
        counts=jnp.int32(0),
    )
    end = lax.while_loop(unfinished, probe, start)
    return end.low, end.below


def _first_positions(tied: list[Array], needed: Int[Array, ""]) -> Int[Array, ""]:
    """The position, counted through all leaves, before which exactly `needed` entries are tied (bisection)."""
    size = sum(leaf.size for leaf in tied)

    def count_before(position: Array) -> Array:
        total, offset = jnp.zeros((), jnp.int32), 0
        for leaf in tied:
            index = lax.iota(jnp.int32, leaf.size) + offset
            total += count_true(leaf.reshape(-1) & (index < position))
            offset += leaf.size
        return total

    def halve(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        enough = count_before(middle) >= needed
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    # Nothing needed is the common case (no ties at the threshold) and costs no pass at all.
    start = jnp.int32(0), jnp.where(needed > 0, jnp.int32(size), jnp.int32(0))
    return lax.while_loop(lambda b: b[0] < b[1], halve, start)[0]


def rounded_share(fraction: Float[Array, ""], count: Int[Array, ""]) -> Int[Array, ""]:
    """round(fraction * count), half to even, exact for counts up to 2**31 though no 64-bit type may be enabled.

    A float32 fraction is read as the decimal number it stands for: 0.1 is 0.1, not 0.100000001.
    """
    with jax.enable_x64(True):
        # Behind the barrier XLA sees no constants, and keeps the division and the product as they are rounded.
        scale, wide = lax.optimization_barrier((jnp.float64(10**DECIMALS), count.astype(jnp.float64)))
        decimal = lax.optimization_barrier(jnp.rint(fraction.astype(jnp.float64) * scale) / scale)
        return jnp.rint(decimal * wide).astype(jnp.int32)


def share_up(fraction: Float[Array, ""], count: int) -> Int[Array, ""]:
    """fraction * count rounded up, for a float64 fraction in [0, 1] and a count below 2**31.

    A ten-thousandth of an entry is taken for the rounding errors of the fraction (2**31 times its resolution is less
    than a hundredth of that). So a third of 24 is 8, and the result is never more than 1e-4 below fraction * count.
    """
    with jax.enable_x64(True):
        # Behind the barrier XLA sees no constants, and keeps the product as it is rounded.
        fraction, wide = lax.optimization_barrier((fraction.astype(jnp.float64), jnp.float64(count)))
        return jnp.clip(jnp.ceil(fraction * wide - 1e-4), 0, count).astype(jnp.int32)


def lowest(
    scores: list[Float[Array, "..."]], kept: list[Bool[Array, "..."]], k: Int[Array, ""]
) -> list[Bool[Array, "..."]]:
    """Where the k lowest-scored kept entries are, pooled over all leaves.

    Args:
      scores: float leaves of any shapes, NaN lowest. All are compared as float64 where one of them is float64 and
        64-bit types are enabled (`jax_enable_x64`), else as float32.
      kept: the entries that take part, same shapes.
      k: int32, between 0 and the number of kept entries; may be traced.

    Returns:
      Boolean leaves with exactly k True; among equal scores the first ones in leaf order, then in row-major order.
    """
    if not scores:
        return []
    # result_type gives float32 where 64-bit types are not enabled.
    dtype = jnp.result_type(jnp.float64) if any(leaf.dtype == jnp.float64 for leaf in scores) else jnp.float32
    keys = [order_keys(s, m, dtype) for s, m in zip(scores, kept, strict=True)]
    threshold, count = _threshold(keys, k)
    needed = k - count  # > 0 only where equal keys straddle the cut
    cut = _first_positions([leaf == threshold for leaf in keys], needed)
    selected, offset = [], 0
    for leaf in keys:
        index = (lax.iota(jnp.int32, leaf.size) + offset).reshape(leaf.shape)
        selected.append((leaf < threshold) | ((leaf == threshold) & (index < cut)))
        offset += leaf.size
    return selected
