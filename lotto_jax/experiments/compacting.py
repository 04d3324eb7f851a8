"""From a trained state and a channel mask to a smaller train state."""

import jax
from jaxtyping import Array, Key, PyTree

from lotto_jax import pruning
from lotto_jax.models import compacted
from lotto_jax.objectives.state import Batch, Objective, TrainState
from lotto_jax.pruning import channels, compaction


def of_any_width(objective: Objective) -> Objective:
    """The objective whose functions also take compacted states; its `init` makes states of full width."""
    return objective.wrapped(compacted.following)


def compact(
    objective: Objective,
    state: TrainState,
    mask: channels.ChannelMask,
    batch: Batch,
    fresh: bool,
    round_to: int = 1,
) -> tuple[TrainState, compaction.Compacted]:
    """The smaller state that computes what `state` computes with `mask` applied, and what was removed.

    Args:
      objective: whose evaluation is walked to see which axes shrink together; of float32, since emulated formats
        scale by the maximum of a whole kernel, which ties all its channels together.
      state: of a single ticket, of full width.
      mask: over batch-norm scales, names relative to params.
      batch: arrays or shapes.
      fresh: whether the optimizer starts anew, or goes on with its moments of the channels that are left.
      round_to: see `pruning.compact`.
    """
    variables = {"params": pruning.apply_channel_mask(state.params, mask), **state.model_state}

    def fn(variables: PyTree, batch: Batch, key: PyTree) -> PyTree:
        rest = {name: collection for name, collection in variables.items() if name != "params"}
        return objective.evaluate(variables["params"], rest, batch, key)

    small = pruning.compact(fn, variables, mask, batch, state.key, round_to=round_to)
    params, model_state = small.variables["params"], {k: v for k, v in small.variables.items() if k != "params"}
    # Moments start at zeros whatever the params are, so a full network's are sliced to a smaller network's.
    opt_state = fresh_optimizer(objective, state.key) if fresh else state.opt_state
    return TrainState(params, model_state, small.shrink(opt_state), state.step, state.key), small


def fresh_optimizer(objective: Objective, key: Key[Array, ""]) -> PyTree:
    """The optimizer state that a training of full width begins with; the params are not computed."""
    return jax.jit(lambda key: objective.init(key).opt_state)(key)
