"""What an objective hands to the training loop: the train state, and pure functions over it."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import optax
from jaxtyping import Array, Float, Int, Key, PyTree, UInt8

from lotto_jax.pruning import masks
from lotto_jax.pruning.optax import masked_updates

Metrics = dict[str, Float[Array, ""]]
Better = Literal["lower", "higher", "neither"]


class Batch(NamedTuple):
    """A batch as the data sources store it; objectives scale the images themselves. Points are float32."""

    image: UInt8[Array, "batch height width channels"] | Float[Array, "batch height width channels"]
    label: Int[Array, "batch *attributes"]


class TrainState(NamedTuple):
    """Everything a run is made of: restoring it continues the run bit for bit, and it is the rewind snapshot.

    Attributes:
      params: `{component: params}`, float32.
      model_state: `{collection: {component: variables}}`: batch statistics, power-iteration vectors.
      opt_state: optax state(s).
      step: updates made so far.
      key: the run's typed key. Batches and noise are functions of (key, step), so it never changes.
    """

    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    step: Int[Array, ""]
    key: Key[Array, ""]


Images = Callable[[PyTree, PyTree, Batch, Key[Array, ""]], Float[Array, "batch height width channels"]]


class TrainingLoss(NamedTuple):
    """What some components minimize, for scores that are taken before training (`pruning.saliency`).

    Attributes:
      components: that it trains.
      value: `(params, model_state, batch, key) -> scalar` in training mode, over the whole batch at once; a function of
        all params.
    """

    components: tuple[str, ...]
    value: Callable[[PyTree, PyTree, Batch, Key[Array, ""]], Float[Array, ""]]


class Objective(NamedTuple):
    """A model with its losses, as pure functions of one ticket (the loop vmaps them over the ticket axis).

    Attributes:
      components: the keys of params, in the order of the data flow.
      init: `key -> TrainState` at step 0.
      step: `(state, mask, batch, key) -> (state, metrics)`: one update of every component. Takes params that are 0
        where pruned and returns such: the mask multiplies into gradients and into the updated params (see
        `masked_update`), so every forward pass sees exact zeros and no copy of the params is masked for it.
      evaluate: `(params, model_state, batch, key) -> metrics`: means over the batch, with stored batch statistics.
      losses: which loss trains which components; every component has one.
      reconstruct: `(params, model_state, batch, key) -> images [batch, height, width, channels]` in [0, 1]; None for a
        model that has no encoder.
      sample: the same, but as many samples as the batch has images, a function of the key alone; of points in their own
        range. None for a model that has no prior.
      collapses: whether training can fail for single tickets without failing the run (GANs). `step` then skips updates
        that are not finite, and `evaluate` has a metric `collapsed`, 1 where the output is constant or not finite.
      better: `(metric, direction)` for each metric of `evaluate`: "lower" or "higher" for the values that are better,
        "neither" for one that does not rank models. Pairs, since an objective must stay hashable.
    """

    components: tuple[str, ...]
    init: Callable[[Key[Array, ""]], TrainState]
    step: Callable[[TrainState, masks.Mask, Batch, Key[Array, ""]], tuple[TrainState, Metrics]]
    evaluate: Callable[[PyTree, PyTree, Batch, Key[Array, ""]], Metrics]
    losses: tuple[TrainingLoss, ...]
    reconstruct: Images | None = None
    sample: Images | None = None
    collapses: bool = False
    better: tuple[tuple[str, Better], ...] = ()

    def wrapped(self, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> "Objective":
        """The objective with every function that runs the model, but `init`, replaced by `wrap(function)`."""
        return self._replace(
            step=wrap(self.step),
            evaluate=wrap(self.evaluate),
            losses=tuple(TrainingLoss(components, wrap(value)) for components, value in self.losses),
            reconstruct=self.reconstruct and wrap(self.reconstruct),
            sample=self.sample and wrap(self.sample),
        )


def masked_update(
    optimizer: optax.GradientTransformation, grads: PyTree, opt_state: Any, params: PyTree, mask: masks.Mask
) -> tuple[PyTree, Any]:
    """One optimizer update that leaves pruned entries at exactly 0: by `pruning.optax.masked_updates`."""
    updates, opt_state = masked_updates(optimizer, mask).update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state
