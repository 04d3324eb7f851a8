"""When masks change and how sparse they are then, as functions of the calls of `update` made so far.

A schedule says which share of the final sparsity is reached, so that leaves of different sparsities follow one curve.
Shares are float64, whether or not 64-bit types are enabled: the counts of weights that they become shall be exact.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lotto_jax.pruning import selection

Step = Int[Array, ""]


class Rewind(NamedTuple):
    """Where a schedule goes back to the snapshot, for `iterative`.

    Attributes:
      save: step whose params and optimizer state are the snapshot.
      now: `step -> bool`, whether this call returns to the snapshot (two calls in a row do; see `iterative`). Such a
        call makes no step of the optimizer, and neither does one that changes masks of a schedule that rewinds.
    """

    save: int
    now: Callable[[Step], Bool[Array, ""]]


class Schedule(NamedTuple):
    """What `sparsify` asks at every call; made by the functions of this module.

    Attributes:
      sparsity: the final one, in [0, 1].
      share: `step -> share of the final sparsity that is due by then`, float64 in [0, 1].
      due: `step -> bool`, whether the masks change in this call.
      end: the step after which masks no longer change; None where they always may.
      rewind: None, or where training starts again.
    """

    sparsity: float
    share: Callable[[Step], Float[Array, ""]]
    due: Callable[[Step], Bool[Array, ""]]
    end: int | None = None
    rewind: Rewind | None = None


def removed(schedule: Schedule, step: Step, count: int) -> Int[Array, ""]:
    """How many weights are to be removed by `step`: a share of `count`, rounded up.

    Args:
      schedule: of this module.
      step: int32, may be traced.
      count: how many are removed in the end, below 2**31.
    """
    return selection.share_up(schedule.share(step), count)


def _entry(shares: Sequence[float], number: Int[Array, ""]) -> Float[Array, ""]:
    """One of `shares`, as it was computed on the host, whether or not 64-bit types are enabled."""
    with jax.enable_x64(True):
        return jnp.asarray(shares, jnp.float64)[number]


def _check(sparsity: float, **numbers: int) -> None:
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity is {sparsity}; it must lie in [0, 1].")
    for name, value in numbers.items():
        least = 1 if name in ("every", "rounds", "round_steps") else 0
        if value < least:
            raise ValueError(f"{name} is {value}; it must be {least} or more.")


def constant(sparsity: float, every: int = 100, end: int | None = None) -> Schedule:
    """The same sparsity from the start, with a new mask at the steps 0, every, 2 every, ... before `end`.

    The schedule of rules that grow (SET, RigL: Delta T = every, T_end = end). A rule that only removes has its final
    mask at step 0.

    Raises:
      ValueError: if the sparsity is outside [0, 1] or a number is too small.
    """
    _check(sparsity, every=every, end=end or 0)

    def due(step: Step) -> Bool[Array, ""]:
        return (step % every == 0) & (step < end if end is not None else True)

    return Schedule(sparsity, lambda step: _entry([1.0], jnp.zeros_like(step)), due, end)


def one_shot(sparsity: float, at: int) -> Schedule:
    """The whole sparsity at once, in the call after `at` updates.

    Raises:
      ValueError: if the sparsity is outside [0, 1] or `at` is negative.
    """
    _check(sparsity, at=at)

    def share(step: Step) -> Float[Array, ""]:
        return _entry([0.0, 1.0], (step >= at).astype(jnp.int32))

    return Schedule(sparsity, share, lambda step: step == at, at)


def polynomial(
    sparsity: float, begin: int, end: int, every: int = 100, power: float = 3.0, initial: float = 0.0
) -> Schedule:
    """From `initial` at step `begin` to `sparsity` at step `end`, with a new mask every `every` steps and at the end.

    s_t = s_f + (s_i - s_f) (1 - (t - begin) / (end - begin))^power

    Args:
      sparsity: final sparsity s_f.
      begin: first step with a sparse mask.
      end: the step that reaches s_f, after `begin`.
      every: steps between two masks (Delta t).
      power: of the polynomial; 3 is `cubic`, 1 is linear.
      initial: sparsity s_i at `begin`, at most s_f.

    Raises:
      ValueError: if a sparsity is outside [0, 1], `initial` is above `sparsity` or `end` not after `begin`.
    """
    _check(sparsity, begin=begin, every=every)
    if not 0 <= initial <= sparsity:
        raise ValueError(f"initial is {initial}; it must lie between 0 and the final sparsity {sparsity}.")
    if end <= begin:
        raise ValueError(f"end is {end}, which is not after begin={begin}; give a later step.")

    ratio = initial / sparsity if sparsity else 1.0
    exponent = int(power) if power == int(power) else power  # of whole powers every device makes products

    def share(step: Step) -> Float[Array, ""]:
        with jax.enable_x64(True):
            left = (end - jnp.clip(step, begin, end)).astype(jnp.float64) / (end - begin)
            return jnp.where(step < begin, 0.0, 1 - (1 - ratio) * left**exponent)

    def due(step: Step) -> Bool[Array, ""]:
        return (step >= begin) & (step <= end) & (((step - begin) % every == 0) | (step == end))

    return Schedule(sparsity, share, due, end)


def cubic(sparsity: float, begin: int, end: int, every: int = 100, initial: float = 0.0) -> Schedule:
    """Automated gradual pruning (Zhu & Gupta 2018, eq. 1): `polynomial` with power 3."""
    return polynomial(sparsity, begin, end, every, 3.0, initial)


def iterative(fraction: float, rounds: int, round_steps: int, rewind_step: int = 0) -> Schedule:
    """Iterative pruning with rewinding (Frankle & Carbin 2019; Frankle et al. 2020), without the host.

    After `round_steps` updates, `fraction` of the weights that are left goes, and params and optimizer state return to
    what they were after `rewind_step` updates; so `rounds` times, and a last training follows. The sparsity after r
    rounds is 1 - (1 - fraction)^r.

    optax adds updates to params, and a sum is rounded. So two calls rewind, and neither uses its gradients: the first
    comes as near as a rounding, and the second has an exact difference and an exact sum. Round 1 has `round_steps`
    updates, two such calls follow, then `round_steps - rewind_step` updates, and so on. What is not in params and
    optimizer state (batch statistics, the order of data) is not rewound.

    Raises:
      ValueError: if `fraction` is not inside (0, 1), a number is too small, or `rewind_step` not below `round_steps`.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction}; the share of weights that goes in a round must lie between 0 and 1.")
    _check(0, rounds=rounds, round_steps=round_steps, rewind_step=rewind_step)
    if rewind_step >= round_steps:
        raise ValueError(f"rewind_step is {rewind_step}, but a round has only {round_steps} updates; lower it.")
    period = round_steps - rewind_step + 2
    sparsity = 1 - (1 - fraction) ** rounds
    shares = [(1 - (1 - fraction) ** r) / sparsity for r in range(rounds + 1)]

    def within(step: Step, calls: int) -> Bool[Array, ""]:
        since = step - round_steps
        return (since >= 0) & (since < rounds * period) & (since % period < calls)

    def share(step: Step) -> Float[Array, ""]:
        number = jnp.clip((step - round_steps) // period + 1, 0, rounds)
        return _entry(shares, number)

    end = round_steps + (rounds - 1) * period
    rewind = Rewind(rewind_step, lambda step: within(step, 2))
    return Schedule(sparsity, share, lambda step: within(step, 1), end, rewind)
