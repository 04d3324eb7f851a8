"""Which weights go and which come back: pure functions of what a call of `update` has seen."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lotto_jax.pruning import scores
from lotto_jax.pruning.masks import Params
from lotto_jax.pruning.scores import Scores

Distribution = Literal["global", "uniform", "erdos_renyi", "erdos_renyi_kernel"] | Mapping[str, float]


class Evidence(NamedTuple):
    """What a rule decides by.

    Attributes:
      params: before the update.
      grads: of all weights at these params, as they were given to `update`.
      history: the sum of -params * grads over all calls, float32; () unless the rule accumulates.
      key: a typed key of this call.
    """

    params: Params
    grads: Params
    history: Scores | tuple[()]
    key: Key[Array, ""]


Score = Callable[[Evidence], Scores]


@dataclasses.dataclass(frozen=True)
class Rule:
    """What `sparsify` does when masks change; made by the functions of this module.

    Attributes:
      keep: scores; the lowest of the kept weights are removed.
      distribution: how sparse each leaf becomes, see `lotto_jax.pruning.optax.sparsify`.
      grow: scores; the highest of the removed weights come back, from 0. None: no weight comes back.
      swapped: `(step, end) -> share of the kept weights` that is removed beyond the schedule, and grown.
      random_start: whether the mask is random and sparse from the start, or dense.
      accumulates: whether `keep` reads the history.
      straight_through: whether removed weights go on training, and may come back by `keep`.
    """

    keep: Score
    distribution: Distribution = "global"
    grow: Score | None = None
    swapped: Callable[[Int[Array, ""], int | None], Float[Array, ""]] | None = None
    random_start: bool = False
    accumulates: bool = False
    straight_through: bool = False


def _magnitude(evidence: Evidence) -> Scores:
    return scores.magnitude(evidence.params)


def _random(evidence: Evidence) -> Scores:
    return scores.random_scores(evidence.key, evidence.params)


def _gradient(evidence: Evidence) -> Scores:
    return jax.tree.map(jnp.abs, evidence.grads)


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is {share}; it must lie in [0, 1].")


def magnitude(distribution: Distribution = "global") -> Rule:
    """The smallest |theta| go (Han et al. 2015; with `cubic`, Zhu & Gupta 2018)."""
    return Rule(_magnitude, distribution)


def random(distribution: Distribution = "global") -> Rule:
    """Weights go at random: the control arm of a gradual schedule."""
    return Rule(_random, distribution)


def saliency(distribution: Distribution = "global") -> Rule:
    """The smallest |theta g| go, by the gradient of this call (Molchanov et al. 2019, first order)."""
    return Rule(
        lambda e: jax.tree.map(lambda p, g: jnp.abs(p.astype(jnp.float32) * g.astype(jnp.float32)), e.params, e.grads),
        distribution,
    )


def movement(distribution: Distribution = "global") -> Rule:
    """The lowest -sum_t theta_t g_t go: weights that move towards 0 (Sanh et al. 2020, section 3, hard top-v).

    The sum takes 4 bytes a weight in the state. A removed weight stays at 0, so its sum stands still and it does not
    come back; in the paper it may: `straight_through(movement())`.
    """
    return Rule(lambda e: e.history, distribution, accumulates=True)


def static(distribution: Distribution = "erdos_renyi_kernel") -> Rule:
    """A random mask that never changes: static sparse training, the baseline of Evci et al. (2020)."""
    return Rule(_random, distribution, random_start=True)


def set_(swapped: float = 0.3, distribution: Distribution = "erdos_renyi") -> Rule:
    """SET, sparse evolutionary training (Mocanu et al. 2018): the smallest |theta| go, random ones come from 0.

    Mocanu et al. draw the weights that come at random; here they start at 0, as in Evci et al. (2020).

    Args:
      swapped: zeta, the share of the kept weights that is replaced each time.
      distribution: of the sparsity over leaves.

    Raises:
      ValueError: if `swapped` is outside [0, 1].
    """
    _check_share("swapped", swapped)
    return Rule(_magnitude, distribution, _random, lambda step, end: jnp.float32(swapped), random_start=True)


def rigl(swapped: float = 0.3, distribution: Distribution = "erdos_renyi_kernel") -> Rule:
    """RigL (Evci et al. 2020, algorithm 1): the smallest |theta| go, those of the largest |gradient| come from 0.

    The share that is replaced is annealed: swapped / 2 (1 + cos(pi t / end)), so the schedule needs an `end`. A weight
    that was removed in the same call may come back, and then keeps its value.

    Args:
      swapped: alpha, the share of the kept weights that is replaced at step 0.
      distribution: of the sparsity over leaves.

    Raises:
      ValueError: if `swapped` is outside [0, 1].
    """
    _check_share("swapped", swapped)

    def annealed(step: Int[Array, ""], end: int | None) -> Float[Array, ""]:
        if end is None:
            raise ValueError("rigl anneals until the schedule's end, which is None; give constant(..., end=steps).")
        return jnp.float32(swapped / 2) * (1 + jnp.cos(jnp.pi * jnp.minimum(step, end).astype(jnp.float32) / end))

    return Rule(_magnitude, distribution, _gradient, annealed, random_start=True)


def straight_through(rule: Rule) -> Rule:
    """`rule` with a straight-through estimator: forward with the mask, gradients and updates for all weights.

    Removed weights keep a value and train on, and every new mask is chosen among all weights again. The loss must be
    taken at `forward_params(params, opt_state)`, since params themselves are dense.

    Raises:
      ValueError: if the rule grows weights or never changes its mask.
    """
    if rule.random_start:
        raise ValueError("straight_through takes a rule that removes weights by scores: magnitude, random, movement.")
    return dataclasses.replace(rule, straight_through=True)
