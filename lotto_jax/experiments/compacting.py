"""From a trained state and a channel mask to a smaller train state, and what a train step of either costs."""

import math
from typing import Any

import jax
import numpy as np
from jax.stages import Compiled
from jaxtyping import Array, Key, PyTree

from lotto_jax import pruning
from lotto_jax.metrics import flops
from lotto_jax.models import compacted, layers
from lotto_jax.objectives.state import Batch, Objective, TrainState
from lotto_jax.pruning import channels, compaction


def of_any_width(objective: Objective) -> Objective:
    """The objective whose functions also take compacted states; its `init` makes those of full width."""
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
    # Moments start at zeros whatever the params are, so those of a full network slice to those of the smaller one.
    opt_state = fresh_optimizer(objective, state.key) if fresh else state.opt_state
    return TrainState(params, model_state, small.shrink(opt_state), state.step, state.key), small


def fresh_optimizer(objective: Objective, key: Key[Array, ""]) -> PyTree:
    """The optimizer state that a training of full width begins with; the params are not computed."""
    return jax.jit(lambda key: objective.init(key).opt_state)(key)


def num_weights(params: PyTree) -> int:
    """Entries of all params."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params))


def step_memory(objective: Objective, state: TrainState, batch: Batch) -> float:
    """MiB that a compiled train step needs at most: its arguments, results and temporaries, as XLA plans them.

    Args:
      objective: one for states of this width.
      state: of a single ticket, arrays or shapes; as `batch`.
      batch: of the size that trains.
    """
    mask = jax.eval_shape(pruning.ones, state.params)
    # A function of its own: the plain form of the layers may be traced for the other.
    step = jax.jit(lambda *inputs: objective.step(*inputs), donate_argnums=0)
    return memory(step.lower(state, mask, batch, state.key).compile())


def memory(compiled: Compiled) -> float:
    """MiB that a compiled program needs at most; NaN where the backend does not tell."""
    plan: Any = compiled.memory_analysis()
    if plan is None:
        return math.nan
    taken = plan.argument_size_in_bytes + plan.temp_size_in_bytes + plan.output_size_in_bytes
    return (taken - plan.alias_size_in_bytes) / 2**20


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
