"""An exponential moving average of params, which evaluation and samples use, as part of the train state.

The average lies in `model_state[COLLECTION]`, next to batch statistics, with the structure of params. So a snapshot, a
checkpoint and a ticket file hold it, and the mask acts on it as on params: the average of a pruned weight is exactly 0.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from lotto_jax.objectives.state import Batch, Metrics, Objective, TrainingLoss, TrainState
from lotto_jax.pruning import masks

COLLECTION = "ema"


def decay_at(step: Int[Array, ""], decay: float) -> Float[Array, ""]:
    """The share of the old average that update number `step`, counted from 0, keeps: min(decay, (1 + n) / (10 + n)).

    Without this warm-up (that of `tf.train.ExponentialMovingAverage`) the average of a short training would be a
    mixture with its initialization: 0.9999 forgets half of it in 6,931 steps.
    """
    n = step.astype(jnp.float32)
    return jnp.minimum(decay, (1.0 + n) / (10.0 + n))


def averaged(objective: Objective, decay: float) -> Objective:
    """The objective that trains as `objective` does, and evaluates and draws with the average of its params.

    Its losses, which score weights before training, are those of the params themselves. Where `model_state` lacks the
    average, as in a network that was exported without it, the params stand for it.

    Args:
      objective: a model that one step updates once.
      decay: of the average, see `decay_at`; 0 makes it the params themselves.

    Raises:
      ValueError: if `decay` is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"ema is {decay}; the decay of the average of params must lie in [0, 1).")

    def init(key: Key[Array, ""]) -> TrainState:
        state = objective.init(key)
        return _with(state, state.params)

    def step(state: TrainState, mask: masks.Mask, batch: Batch, key: Key[Array, ""]) -> tuple[TrainState, Metrics]:
        inner = state._replace(model_state=without(state.model_state))
        new, metrics = objective.step(inner, mask, batch, key)
        rate = 1.0 - decay_at(state.step, decay)
        move = lambda average, param: average + rate * (param - average)  # noqa: E731
        average = jax.tree.map(move, state.model_state[COLLECTION], new.params)
        return _with(new, masks.apply(average, mask)), metrics

    def by_average(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Any:
            return function(model_state.get(COLLECTION, params), without(model_state), batch, key)

        return call

    def by_params(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda params, model_state, batch, key: function(params, without(model_state), batch, key)

    losses = tuple(TrainingLoss(components, by_params(value)) for components, value in objective.losses)
    return objective.wrapped(by_average)._replace(init=init, step=step, losses=losses)


def without(model_state: PyTree) -> PyTree:
    """Model state without the average."""
    return {name: collection for name, collection in model_state.items() if name != COLLECTION}


def _with(state: TrainState, average: PyTree) -> TrainState:
    return state._replace(model_state={**state.model_state, COLLECTION: average})
