"""From a trained state and a channel mask to a smaller train state, and what a train step of either costs."""

import jax
import numpy as np
from jaxtyping import PyTree

from lotto_jax import pruning
from lotto_jax.metrics import flops
from lotto_jax.models import compacted, layers
from lotto_jax.objectives.state import Batch, Objective, TrainState
from lotto_jax.pruning import channels, compaction


def of_any_width(objective: Objective) -> Objective:
    """The objective whose functions also take compacted states; its `init` makes those of full width."""
    return objective.wrapped(compacted.following)


def compact(
    objective: Objective, state: TrainState, mask: channels.ChannelMask, batch: Batch, fresh: bool
) -> tuple[TrainState, compaction.Compacted]:
    """The smaller state that computes what `state` computes with `mask` applied, and what was removed.

    Args:
      objective: whose evaluation is walked to see which axes shrink together.
      state: of a single ticket, of full width.
      mask: over batch-norm scales, names relative to params.
      batch: arrays or shapes.
      fresh: whether the optimizer starts anew, or goes on with its moments of the channels that are left.
    """
    variables = {"params": pruning.apply_channel_mask(state.params, mask), **state.model_state}

    def fn(variables: PyTree, batch: Batch, key: PyTree) -> PyTree:
        rest = {name: collection for name, collection in variables.items() if name != "params"}
        return objective.evaluate(variables["params"], rest, batch, key)

    small = pruning.compact(fn, variables, mask, batch, state.key)
    params, model_state = small.variables["params"], {k: v for k, v in small.variables.items() if k != "params"}
    # Moments start at zeros whatever the params are, so those of a full network slice to those of the smaller one.
    opt_state = jax.jit(objective.init)(state.key).opt_state if fresh else state.opt_state
    return TrainState(params, model_state, small.shrink(opt_state), state.step, state.key), small


def num_weights(params: PyTree) -> int:
    """Entries of all params."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params))


def step_flops(objective: Objective, state: TrainState, batch: Batch) -> int:
    """FLOPs of a train step: forward, backward and update, multiply-adds with zero padding included.

    Args:
      objective: one for states of this width.
      state: of a single ticket, arrays or shapes; as `batch`.
      batch: of the size that trains.
    """
    # A function of its own, so that it is traced anew in the plain form of the layers.
    step = lambda *inputs: objective.step(*inputs)  # noqa: E731
    with layers.plain_lowering():
        return flops.count(step, state, pruning.ones(state.params), batch, state.key, padding=True).total
