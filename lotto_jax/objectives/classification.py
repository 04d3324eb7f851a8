"""Classification objective: cross-entropy of classes, or of attributes of which an image can have several."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree, UInt8

from lotto_jax.objectives import single
from lotto_jax.objectives.ranges import to_unit
from lotto_jax.objectives.state import Batch, Better, Metrics, Objective

BETTER: dict[str, Better] = {"loss": "lower", "accuracy": "higher"}


def hits(
    logits: Float[Array | np.ndarray, "batch classes"], label: Int[Array | np.ndarray, "batch *attributes"]
) -> Float[Array, "batch"]:
    """Whether the likeliest class is the label; for labels [batch, attributes], the share of attributes told right."""
    if label.ndim == 1:
        return (jnp.argmax(logits, axis=-1) == label).astype(jnp.float32)
    return jnp.mean((logits > 0) == (label > 0), axis=-1, dtype=jnp.float32)


def augment(
    image: UInt8[Array, "batch height width channels"], key: Key[Array, ""], flip: bool, shift: int
) -> UInt8[Array, "batch height width channels"]:
    """Every image mirrored with probability 1/2, and moved by up to `shift` pixels each way (zeros move in)."""
    flip_key, shift_key = jax.random.split(key)
    batch, height, width, channels = image.shape
    if flip:
        mirrored = jax.random.bernoulli(flip_key, shape=(batch, 1, 1, 1))
        image = jnp.where(mirrored, image[:, :, ::-1], image)
    if shift:
        around = jnp.pad(image, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
        corner = jax.random.randint(shift_key, (batch, 2), 0, 2 * shift + 1)
        cut = lambda x, at: jax.lax.dynamic_slice(x, (at[0], at[1], 0), (height, width, channels))  # noqa: E731
        image = jax.vmap(cut)(around, corner)
    return image


def make(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    flip: bool = False,
    shift: int = 0,
) -> Objective:
    """The objective of a classifier with the component `classifier`.

    Its metrics are `loss` (cross-entropy in nats; the mean over attributes, where labels are those) and `accuracy` in
    [0, 1] (see `hits`).

    Args:
      model: called as `model(image, train)` on images in [0, 1], returns logits `[batch, classes]`.
      optimizer: updates all params.
      image_shape: (height, width, channels).
      flip: mirror half of the training images, drawn from the step's key.
      shift: move training images by up to so many pixels in both directions, drawn from the step's key.
    """

    def initialize(key: Key[Array, ""]) -> tuple[PyTree, Key[Array, ""]]:
        return model.init(key, jnp.zeros((1, *image_shape)), train=False), key

    def metrics(logits: Array, label: Array) -> Metrics:
        if label.ndim == 1:
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        else:
            loss = optax.sigmoid_binary_cross_entropy(logits, label)
        return {"loss": jnp.mean(loss), "accuracy": jnp.mean(hits(logits, label))}

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Array, tuple[PyTree, Metrics]]:
        image = to_unit(augment(batch.image, key, flip, shift))
        variables = {"params": params, **model_state}
        logits, model_state = model.apply(variables, image, train=True, mutable=list(model_state))
        found = metrics(logits, batch.label)
        return found["loss"], (model_state, found)

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Metrics:
        del key
        variables = {"params": params, **model_state}
        logits = model.apply(variables, to_unit(batch.image), train=False)
        assert isinstance(logits, jax.Array)  # nothing is mutable
        return metrics(logits, batch.label)

    return single.make(("classifier",), initialize, loss, evaluate, optimizer, model, BETTER)
