"""Whether two trained networks lie in one basin: the loss on the straight line between them.

Frankle et al. (ICML 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis"): tickets win where two copies,
trained from one state with other orders of the data, are connected by a line without a barrier.

Batch statistics are made anew at every point of the line, the ends included, by the same moving average that training
takes, over training batches at fixed weights. The average of two networks' statistics would be the statistics of
neither: activations in the middle have smaller variances than those at the ends (Jordan et al., ICLR 2023), and
normalizing by the average shows a barrier that is not one of the weights.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, PyTree

from lotto_jax.objectives.state import Batch, Objective, TrainState
from lotto_jax.training import streams
from lotto_jax.training.streams import Stream


@functools.partial(jax.jit, static_argnames="points")
def line(a: PyTree, b: PyTree, points: int = 11) -> PyTree:
    """Networks at equal distances on the straight line from `a` to `b`, stacked: leaves [points, ...].

    Args:
      a: float arrays.
      b: of the same structure and shapes.
      points: the ends among them.
    """
    shares = jnp.linspace(0.0, 1.0, points)

    def between(x: Array, y: Array) -> Array:
        t = shares.reshape(-1, *[1] * x.ndim)
        # Both ends exactly: the sum of two weighted ends would round.
        return jnp.where(t < 0.5, x[None] + t * (y - x)[None], y[None] - (1 - t) * (y - x)[None])

    return jax.tree.map(between, a, b)


@jax.jit
def barrier(losses: Float[Array, "points"]) -> Float[Array, ""]:
    """How far the loss on a line rises above the straight line between the losses at its ends; 0 if nowhere.

    Where both ends are equally good, as siblings are, that is what Frankle et al. call linear interpolation
    instability, the maximum above the mean of the ends. Rounds are not equally good: the loss between them may rise all
    the way, and a rise from one end to the other is no barrier (Entezari et al., ICLR 2022, equation 1).

    Args:
      losses: at equal distances on the line; lower is better.
    """
    shares = jnp.linspace(0.0, 1.0, losses.shape[0])
    return jnp.max((losses - losses[0]) - shares * (losses[-1] - losses[0]))  # exactly 0 where all are equal


@functools.partial(jax.jit, static_argnames="objective")
def recomputed(
    objective: Objective, params: PyTree, model_state: PyTree, batches: Batch, key: Key[Array, ""]
) -> PyTree:
    """The batch statistics of stacked networks, made anew from the given ones, whose share fades.

    Args:
      objective: whose step moves statistics; the updates of params that it makes are dropped.
      params: leaves [points, ...].
      model_state: leaves [points, ...].
      batches: leaves [count, batch, ...]; with a momentum of 0.9, after 50 batches a share of 0.5 % is left of the
        given statistics.
      key: of the noise in training, as of a ticket.
    """
    opt_state = objective.init(key).opt_state
    count = batches.label.shape[0]

    def of_one(given: tuple[PyTree, PyTree]) -> PyTree:
        params, statistics = given
        mask = jax.tree.map(lambda _: jnp.ones((), bool), params)

        def body(statistics: PyTree, item: tuple[Batch, Array]) -> tuple[PyTree, None]:
            batch, step = item
            state = TrainState(params, statistics, opt_state, step, key)
            return objective.step(state, mask, batch, streams.key(key, Stream.NOISE, step))[0].model_state, None

        return lax.scan(body, statistics, (batches, jnp.arange(count)))[0]

    return lax.map(of_one, (params, model_state))
