"""Reconstruction objective of autoencoders: mean squared error or binary cross-entropy a pixel."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree

from lotto_jax.objectives import single
from lotto_jax.objectives.ranges import to_unit
from lotto_jax.objectives.state import Batch, Better, Metrics, Objective

Loss = Literal["mse", "bce"]
BETTER: dict[str, Better] = {"reconstruction_loss": "lower"}


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
      ValueError: for an unknown `loss`, or a sigmoid before the logits that "bce" takes.
    """
    check_loss(loss)
    if loss == "bce" and getattr(model, "output", "") == "sigmoid":
        raise ValueError("config.objective.loss is 'bce', which takes logits; set config.model.output to 'none'.")

    def initialize(key: Key[Array, ""]) -> tuple[PyTree, Key[Array, ""]]:
        return model.init(key, jnp.zeros((1, *image_shape)), train=False), key

    def forward(params: PyTree, model_state: PyTree, image: Array, train: bool) -> tuple[Array, PyTree]:
        return model.apply({"params": params, **model_state}, image, train=train, mutable=list(model_state))

    def error(output: Array, image: Array) -> Array:
        if loss == "mse":
            return jnp.mean(jnp.square(output - image))
        return jnp.mean(optax.sigmoid_binary_cross_entropy(output, image))

    def training_loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Array, tuple[PyTree, Metrics]]:
        del key  # reconstruction has no noise
        image = to_unit(batch.image)
        output, model_state = forward(params, model_state, image, train=True)
        value = error(output, image)
        return value, (model_state, {"loss": value})

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Metrics:
        del key
        image = to_unit(batch.image)
        return {"reconstruction_loss": error(forward(params, model_state, image, train=False)[0], image)}

    def reconstruct(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Array:
        del key
        output, _ = forward(params, model_state, to_unit(batch.image), train=False)
        return jnp.clip(output, 0.0, 1.0) if loss == "mse" else jax.nn.sigmoid(output)

    components = ("encoder", "decoder")
    return single.make(
        components, initialize, training_loss, evaluate, optimizer, model, BETTER, reconstruct=reconstruct
    )
