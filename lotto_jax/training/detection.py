"""The search for early-bird tickets inside the training loop: an objective whose states carry the detectors."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from lotto_jax.objectives.state import Batch, Metrics, Objective, TrainState
from lotto_jax.pruning import channels
from lotto_jax.pruning.masks import Path, in_components

COLLECTION = "early_bird"  # of model_state, next to the batch statistics
NOT_FOUND = -1


class Detection(NamedTuple):
    """What a search has seen, one entry a compression.

    Attributes:
      window: state of every detector, leaves [compressions, ...].
      found: the step at which a ticket was found, `NOT_FOUND` before.
    """

    window: channels.EarlyBirdState
    found: Int[Array, "compressions"]

    @property
    def masks(self) -> PyTree[Bool[Array, "... compressions channels"]]:
        """The newest channel mask of every compression; leading axes, of tickets, stay."""
        return {name: window[..., -1, :] for name, window in self.window.masks.items()}


class Search(NamedTuple):
    """What to look for, and when.

    Attributes:
      components: whose batch-norm scales are ranked together.
      compressions: shares of their channels to remove; each has a detector of its own.
      interval: steps between two masks.
      detector: the criterion.
      minimum: channels that every layer keeps at least.
      norm_groups: of a network with group norm, channels of a norm group by name of the scale. Only these scales are
        ranked then, a whole norm group at a time, by its mean |gamma|; masks and `minimum` count norm groups.
    """

    components: tuple[str, ...]
    compressions: tuple[float, ...]
    interval: int
    detector: channels.EarlyBird = channels.EarlyBird()
    minimum: int = 1
    norm_groups: Mapping[str, int] = {}

    def scales(self, params: PyTree) -> dict[str, Float[Array, "channels"]]:
        """What is ranked, by leaf name: the scales, or of norm groups their mean |gamma|.

        Raises:
          ValueError: if there are none.
        """
        found = channels.batch_norm_scales(params, in_components(*self.components, prunable=channels.is_scale))
        if not self.norm_groups:
            return found
        groups = {name: size for name, size in self.norm_groups.items() if name in found}
        return {name: jnp.mean(jnp.abs(found[name]).reshape(-1, size), axis=1) for name, size in groups.items()}

    def init(self, params: PyTree) -> Detection:
        """The state before the first mask."""
        scales, count = self.scales(params), len(self.compressions)
        no_mask = jax.tree.map(lambda x: jnp.ones((count, *x.shape), bool), scales)
        window = jax.vmap(self.detector.init)(no_mask)
        return Detection(window._replace(seen=jnp.zeros(count, jnp.int32)), jnp.full(count, NOT_FOUND, jnp.int32))

    def look(self, detection: Detection, scales: channels.Scales, step: Int[Array, ""]) -> Detection:
        """Take the masks of this moment; those that have settled for the first time are found at `step`."""
        fractions = jnp.asarray(self.compressions, jnp.float32)
        masks = jax.vmap(lambda fraction: channels.channel_mask(scales, fraction, self.minimum))(fractions)
        window, settled = jax.vmap(self.detector.update)(detection.window, masks)
        return Detection(window, jnp.where(settled & (detection.found == NOT_FOUND), step, detection.found))


def watch(objective: Objective, search: Search) -> Objective:
    """The objective that trains as `objective` does and looks for tickets every `search.interval` steps.

    Its states have a `Detection` in `model_state[COLLECTION]`, so checkpoints hold it too. A step has one metric more
    for each compression, `mask_distance_<compression>`: the largest distance of the newest mask to the others of the
    window, 1 until the window is full. The look is a branch of the compiled step; where tickets are trained by `vmap`
    both branches are computed.
    """

    def init(key: Key[Array, ""]) -> TrainState:
        state = objective.init(key)
        return _with(state, search.init(state.params))

    def step(state: TrainState, mask: PyTree, batch: Batch, key: Key[Array, ""]) -> tuple[TrainState, Metrics]:
        new, metrics = objective.step(unwatched(state), mask, batch, key)
        due = new.step % search.interval == 0
        operands = state.model_state[COLLECTION], search.scales(new.params), new.step
        detection = lax.cond(due, search.look, lambda detection, *_: detection, *operands)
        distances = jnp.max(detection.window.distances, axis=1)
        names = [f"mask_distance_{compression:g}" for compression in search.compressions]
        return _with(new, detection), metrics | {name: distances[i] for i, name in enumerate(names)}

    def blind(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda params, model_state, batch, key: function(params, _rest(model_state), batch, key)

    return objective.wrapped(blind)._replace(init=init, step=step)


def unwatched(state: TrainState) -> TrainState:
    """The state without its `Detection`."""
    return state._replace(model_state=_rest(state.model_state))


def _rest(model_state: PyTree) -> PyTree:
    return {name: collection for name, collection in model_state.items() if name != COLLECTION}


def _with(state: TrainState, detection: Detection) -> TrainState:
    return state._replace(model_state={**state.model_state, COLLECTION: detection})


def slimmed(optimizer: optax.GradientTransformation, coefficient: float) -> optax.GradientTransformation:
    """The optimizer with the L1 term of network slimming (`pruning.slimming_penalty`) on every scale of its params.

    The gradient `coefficient * sign(gamma)` is added to the gradient of the loss. The optimizer's state is unchanged.
    """

    def update(grads: PyTree, state: PyTree, params: PyTree | None = None) -> tuple[PyTree, PyTree]:
        def slim(path: Path, grad: Array, param: Array) -> Array:
            return grad + coefficient * jnp.sign(param) if channels.is_scale(path, param) else grad

        return optimizer.update(jax.tree_util.tree_map_with_path(slim, grads, params), state, params)

    return optax.GradientTransformation(optimizer.init, update)
