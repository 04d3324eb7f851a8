"""What the tickets of a finished search cost: weights, FLOPs and seconds of training, those of the search included.

Masks save no operation, so a pruned ticket trains at the dense network's price. A winning ticket of round r needs the r
trainings before it; so does any ticket that takes its mask. Tickets that start at the rewind step do not train again up
to it. Seconds are those of training, without evaluation, the pruning itself and compilation; `compilation_seconds`
are those of all phases up to the ticket's.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lotto_jax import pruning
from lotto_jax.experiments import at_initialization, compacting
from lotto_jax.experiments.run_directory import Result
from lotto_jax.experiments.tickets import Ticket
from lotto_jax.metrics import flops
from lotto_jax.models import layers
from lotto_jax.objectives.state import Batch, Objective
from lotto_jax.training import checkpoints


class Costs(NamedTuple):
    """FLOPs of a train step, of one pruning, and of the scores of each arm that is pruned at initialization.

    Attributes:
      memory: MiB that a step needs at most; a mask saves none.
    """

    step: int
    prune: int
    scores: dict[str, int]
    memory: float


def of_operations(config: ConfigDict, objective: Objective, batch: Batch) -> Costs:
    """Counted on the computations of one ticket; nothing is run. Loops inside a pruning count once, which is noise.

    Args:
      config: of the search.
      objective: its own.
      batch: shapes of a training batch.
    """
    state = jax.eval_shape(objective.init, jax.random.key(0))
    mask = jax.eval_shape(pruning.ones, state.params)
    prune = lambda params, mask: pruning.global_prune(pruning.magnitude(params), mask, 0.2)  # noqa: E731
    batches = jax.tree.map(lambda x: jax.ShapeDtypeStruct((config.imp.score_batches, *x.shape), x.dtype), batch)
    inputs = state, mask, batches, jax.ShapeDtypeStruct((), jnp.float32)
    scores = {}
    for arm in at_initialization.SCORERS:
        if arm in config.imp.arms:
            find = functools.partial(at_initialization.mask_of, objective, arm)
            with layers.plain_lowering():
                scores[arm] = flops.count(find, *inputs, padding=True).total
    step, pruned = compacting.step_flops(objective, state, batch), flops.count(prune, state.params, mask).total
    return Costs(step, pruned, scores, compacting.step_memory(objective, state, batch))


def results(config: ConfigDict, objective: Objective, batch: Batch, store: checkpoints.Store) -> Iterator[Result]:
    """The rows of results.csv, for every ticket of the phases that are kept.

    Args:
      config: of the search.
      objective: its own.
      batch: shapes of a training batch.
      store: its finished phases, of all rounds so far.
    """
    costs = of_operations(config, objective, batch)
    params = jax.eval_shape(objective.init, jax.random.key(0)).params
    prunable, weights = pruning.num_prunable(pruning.ones(params)), compacting.num_weights(params)
    metas = [store.meta(phase) for phase in store.steps()]
    steps, rewind = metas[0]["steps"], config.imp.rewind_step
    rounds = [meta["seconds"] for meta in metas]
    for phase, meta in enumerate(metas):
        for ticket in (Ticket(*fields) for fields in meta["tickets"]):
            own: dict[str, float] = {"weights": weights, "nonzero_weights": weights - round(ticket.sparsity * prunable)}
            rate = meta["seconds"]
            if ticket.arm == "dense" or ticket.arm in costs.scores:
                operations, seconds = costs.step * steps + costs.scores.get(ticket.arm, 0), rate * steps
            else:
                last = steps if ticket.arm == "random" else steps - rewind
                earlier = [steps] + [steps - rewind] * (ticket.round - 1)
                operations = costs.step * (sum(earlier) + last) + costs.prune * ticket.round
                seconds = sum(n * r for n, r in zip(earlier, rounds, strict=False)) + last * rate
            own |= {"flops": operations, "training_seconds": seconds, "step_memory_mib": costs.memory}
            own |= {"compilation_seconds": sum(m["compilation_seconds"] for m in metas[: phase + 1])}
            yield from (ticket.result(config, steps, name, float(value)) for name, value in own.items())
