"""Classification objective: cross-entropy of labels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree

from lotto_jax.objectives.reconstruction import to_unit
from lotto_jax.objectives.state import Batch, Metrics, Objective, TrainState, masked_update
from lotto_jax.pruning import masks


def make(model: nn.Module, optimizer: optax.GradientTransformation, image_shape: tuple[int, int, int]) -> Objective:
    """The objective of a classifier with the component `classifier`.

    Its metrics are `loss` (cross-entropy in nats) and `accuracy` in [0, 1]; its `images` are the batch.

    Args:
      model: called as `model(image, train)` on images in [0, 1], returns logits `[batch, classes]`.
      optimizer: updates all params.
      image_shape: (height, width, channels).
    """

    def init(key: Key[Array, ""]) -> TrainState:
        variables = dict(model.init(key, jnp.zeros((1, *image_shape)), train=False))
        params = variables.pop("params")
        return TrainState(params, variables, optimizer.init(params), jnp.zeros((), jnp.int32), key)

    def metrics(logits: Array, batch: Batch) -> Metrics:
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch.label)
        correct = jnp.argmax(logits, axis=-1) == batch.label
        return {"loss": jnp.mean(loss), "accuracy": jnp.mean(correct, dtype=jnp.float32)}

    def step(state: TrainState, mask: masks.Mask, batch: Batch, key: Key[Array, ""]) -> tuple[TrainState, Metrics]:
        del key  # no noise, no augmentation

        def loss_fn(params: PyTree) -> tuple[Array, tuple[PyTree, Metrics]]:
            variables = {"params": params, **state.model_state}
            logits, model_state = model.apply(
                variables, to_unit(batch.image), train=True, mutable=list(state.model_state)
            )
            found = metrics(logits, batch)
            return found["loss"], (model_state, found)

        (_, (model_state, found)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        params, opt_state = masked_update(optimizer, grads, state.opt_state, state.params, mask)
        return TrainState(params, model_state, opt_state, state.step + 1, state.key), found

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Metrics:
        del key
        variables = {"params": params, **model_state}
        logits = model.apply(variables, to_unit(batch.image), train=False)
        assert isinstance(logits, jax.Array)  # nothing is mutable
        return metrics(logits, batch)

    return Objective(("classifier",), init, step, evaluate)
