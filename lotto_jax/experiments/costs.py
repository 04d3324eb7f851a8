"""What a train step costs: weights, FLOPs and memory, of networks of any width. Nothing is run."""

import math
from typing import Any

import jax
import numpy as np
from jax.stages import Compiled
from jaxtyping import PyTree

from lotto_jax import pruning
from lotto_jax.metrics import flops
from lotto_jax.models import layers
from lotto_jax.objectives.state import Batch, Better, Objective, TrainState

BETTER: dict[str, Better] = {
    "weights": "lower",
    "nonzero_weights": "lower",
    "flops": "lower",
    "training_seconds": "lower",
    "compilation_seconds": "lower",
    "step_memory_mib": "lower",
    "channels_removed": "neither",
    "found_step": "neither",
}


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
