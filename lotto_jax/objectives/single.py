"""The objective of a model whose params one optimizer updates, all of them by one loss."""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from lotto_jax.objectives import loss_scale
from lotto_jax.objectives.state import (
    Batch,
    Better,
    Images,
    Metrics,
    Objective,
    TrainingLoss,
    TrainState,
    masked_update,
)
from lotto_jax.pruning import masks

Evaluate = Callable[[PyTree, PyTree, Batch, Key[Array, ""]], Metrics]
Loss = Callable[[PyTree, PyTree, Batch, Key[Array, ""]], tuple[Float[Array, ""], tuple[PyTree, Metrics]]]


def make(
    components: tuple[str, ...],
    initialize: Callable[[Key[Array, ""]], tuple[Mapping[str, PyTree], Key[Array, ""]]],
    loss: Loss,
    evaluate: Evaluate,
    optimizer: optax.GradientTransformation,
    model: nn.Module,
    better: Mapping[str, Better],
    reconstruct: Images | None = None,
    sample: Images | None = None,
) -> Objective:
    """The objective that minimizes `loss`.

    Args:
      components: in the order of the data flow; where params have other top-level keys, these.
      initialize: `key -> (variables, key of the run)`; variables as `flax.linen.Module.init` returns them.
      loss: `(params, model_state, batch, key) -> (scalar, (model_state, metrics))` in training mode; its metrics are
        the metrics of a step.
      evaluate: see `Objective`.
      optimizer: updates all params.
      model: in float16 (its field `dtype`) the loss is scaled (see `loss_scale`).
      better: see `Objective`, as a mapping.
      reconstruct: see `Objective`.
      sample: see `Objective`.
    """
    optimizer = loss_scale.for_dtype(optimizer, getattr(model, "dtype", jnp.float32))
    found = jax.eval_shape(lambda key: initialize(key)[0]["params"], jax.random.key(0))
    components = components if set(found) == set(components) else tuple(found)

    def init(key: Key[Array, ""]) -> TrainState:
        variables, run_key = initialize(key)
        model_state = {collection: value for collection, value in variables.items() if collection != "params"}
        params = variables["params"]
        return TrainState(params, model_state, optimizer.init(params), jnp.zeros((), jnp.int32), run_key)

    def step(state: TrainState, mask: masks.Mask, batch: Batch, key: Key[Array, ""]) -> tuple[TrainState, Metrics]:
        loss_fn = loss_scale.value_and_grad(loss, state.opt_state)
        (_, (model_state, metrics)), grads = loss_fn(state.params, state.model_state, batch, key)
        params, opt_state = masked_update(optimizer, grads, state.opt_state, state.params, mask)
        return TrainState(params, model_state, opt_state, state.step + 1, state.key), metrics

    def value(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Float[Array, ""]:
        return loss(params, model_state, batch, key)[0]

    losses = (TrainingLoss(components, value),)
    pairs = tuple(better.items())
    return Objective(components, init, step, evaluate, losses, reconstruct, sample, better=pairs)
