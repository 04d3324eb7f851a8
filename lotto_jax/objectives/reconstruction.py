"""Reconstruction objective of autoencoders: mean squared error or binary cross-entropy a pixel."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from lotto_jax.objectives import loss_scale
from lotto_jax.objectives.state import Batch, Better, Metrics, Objective, TrainingLoss, TrainState, masked_update
from lotto_jax.pruning import masks

Loss = Literal["mse", "bce"]

BETTER: tuple[tuple[str, Better], ...] = (("reconstruction_loss", "lower"),)


def to_unit(image: Array) -> Float[Array, "..."]:
    """Uint8 images as float32 in [0, 1]."""
    return image.astype(jnp.float32) / 255.0


def check_loss(loss: str) -> None:
    """Raise ValueError unless `loss` is a reconstruction loss."""
    if loss not in ("mse", "bce"):
        raise ValueError(f"loss is {loss!r}; a reconstruction loss is 'mse' or 'bce'.")


def make(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    loss: Loss = "mse",
) -> Objective:
    """The objective of an autoencoder with components `encoder` and `decoder`.

    Args:
      model: called as `model(image, train)` on images in [0, 1], returns reconstructions.
      optimizer: updates all params.
      image_shape: (height, width, channels).
      loss: "mse", or "bce", which takes the model's output as logits of the reconstruction.

    Raises:
      ValueError: for an unknown `loss`.
    """
    check_loss(loss)
    optimizer = loss_scale.for_dtype(optimizer, model.dtype)

    def init(key: Key[Array, ""]) -> TrainState:
        variables = dict(model.init(key, jnp.zeros((1, *image_shape)), train=False))
        params = variables.pop("params")
        return TrainState(params, variables, optimizer.init(params), jnp.zeros((), jnp.int32), key)

    def forward(params: PyTree, model_state: PyTree, image: Array, train: bool) -> tuple[Array, PyTree]:
        return model.apply({"params": params, **model_state}, image, train=train, mutable=list(model_state))

    def error(output: Array, image: Array) -> Array:
        if loss == "mse":
            return jnp.mean(jnp.square(output - image))
        return jnp.mean(optax.sigmoid_binary_cross_entropy(output, image))

    def training_loss(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> tuple[Array, PyTree]:
        del key  # reconstruction has no noise
        image = to_unit(batch.image)
        output, model_state = forward(params, model_state, image, train=True)
        return error(output, image), model_state

    def step(state: TrainState, mask: masks.Mask, batch: Batch, key: Key[Array, ""]) -> tuple[TrainState, Metrics]:
        loss_fn = loss_scale.value_and_grad(training_loss, state.opt_state)
        (value, model_state), grads = loss_fn(state.params, state.model_state, batch, key)
        params, opt_state = masked_update(optimizer, grads, state.opt_state, state.params, mask)
        return TrainState(params, model_state, opt_state, state.step + 1, state.key), {"loss": value}

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Metrics:
        del key
        image = to_unit(batch.image)
        return {"reconstruction_loss": error(forward(params, model_state, image, train=False)[0], image)}

    def reconstruct(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Array:
        del key
        output, _ = forward(params, model_state, to_unit(batch.image), train=False)
        return jnp.clip(output, 0.0, 1.0) if loss == "mse" else jax.nn.sigmoid(output)

    components = ("encoder", "decoder")
    losses = (TrainingLoss(components, lambda *inputs: training_loss(*inputs)[0]),)
    return Objective(components, init, step, evaluate, losses, reconstruct, better=BETTER)
