"""Table 2 and Figure 7: a search for winning tickets with SNIP and GraSP, and one for early-bird tickets, in one run.

Each is a run of its own in a directory below, `imp/` and `early_bird/`, with the same networks, data and seeds; what
they measure, and what their tickets cost, is put together in results.csv above them.

Masks save no operation, so a pruned ticket trains at the dense network's price. A winning ticket of round r needs the r
trainings before it; so does any ticket that takes its mask. Tickets that start at the rewind step do not train again up
to it. Seconds are seconds of training, without evaluation, the pruning itself and compilation.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lotto_jax import pruning
from lotto_jax.experiments import build, costs, prune_at_init
from lotto_jax.experiments.protocol import Experiment
from lotto_jax.metrics import flops
from lotto_jax.models import layers
from lotto_jax.objectives.state import Batch, Objective
from lotto_jax.reports import sections
from lotto_jax.runs import kept
from lotto_jax.runs.results import Result
from lotto_jax.runs.tickets import Ticket
from lotto_jax.training.feed import Feed

PARTS = ("imp", "early_bird")


def check(config: ConfigDict, objective: Objective, feed: Feed) -> None:
    """Raise ValueError on the first field that makes no sense for a table of both."""
    del objective, feed  # the parts check these
    imp = config.imp
    if len(imp.pruned) != 1:
        raise ValueError(f"config.imp.pruned is {tuple(imp.pruned)}; Table 2 takes one choice of components.")
    if imp.one_shot_sparsities or set(imp.arms) - {"winning", *prune_at_init.SCORERS}:
        raise ValueError(
            f"config.imp.arms is {tuple(imp.arms)}, config.imp.one_shot_sparsities {tuple(imp.one_shot_sparsities)}; "
            "Table 2 has winning, snip and grasp, and no one-shot tickets."
        )
    if "dense" in config.early_bird.arms:
        raise ValueError("config.early_bird.arms holds 'dense', which Table 2 has from the other part; leave it out.")
    if config.checkpoint.keep_states != "all":
        raise ValueError("config.checkpoint.keep_states must be 'all': Table 2 adds up the costs of every round.")


class Operations(NamedTuple):
    """FLOPs of a train step, of one pruning, and of the scores of each arm that is pruned at initialization; MiB that a
    step needs at most.
    """

    step: int
    prune: int
    scores: dict[str, int]
    memory: float


def operations(config: ConfigDict, objective: Objective, batch: Batch) -> Operations:
    """Counted on the computations of one ticket; nothing is run. Loops inside a pruning count once, which is noise."""
    state = jax.eval_shape(objective.init, jax.random.key(0))
    mask = jax.eval_shape(pruning.ones, state.params)
    prune = lambda params, mask: pruning.global_prune(pruning.magnitude(params), mask, 0.2)  # noqa: E731
    batches = jax.tree.map(lambda x: jax.ShapeDtypeStruct((config.imp.score_batches, *x.shape), x.dtype), batch)
    inputs = state, mask, batches, jax.ShapeDtypeStruct((), jnp.float32)
    scores = {}
    for arm in prune_at_init.SCORERS:
        if arm in config.imp.arms:
            find = functools.partial(prune_at_init.mask_of, objective, arm)
            with layers.plain_lowering():
                scores[arm] = flops.count(find, *inputs, padding=True).total
    step, pruned = costs.step_flops(objective, state, batch), flops.count(prune, state.params, mask).total
    return Operations(step, pruned, scores, costs.step_memory(objective, state, batch))


def combine(config: ConfigDict, feed: Feed, path: Path) -> list[Result]:
    """What the tickets of the search cost, of all phases that are done."""
    objective = build.objective(config, feed.dataset.image_shape, feed.dataset.classes)
    params = jax.eval_shape(objective.init, jax.random.key(0)).params
    prunable, weights = pruning.num_prunable(pruning.ones(params)), costs.num_weights(params)
    counted, rewind = operations(config, objective, feed.batch), config.imp.rewind_step
    with kept.opened(path / "imp") as store:
        metas = [store.meta(phase) for phase in store.steps()]
    steps, rates = metas[0]["steps"], [meta["step_seconds"] for meta in metas]
    rows = []
    for phase, meta in enumerate(metas):
        for ticket in (Ticket(**fields) for fields in meta["tickets"]):
            own: dict[str, float] = {"weights": weights, "nonzero_weights": weights - round(ticket.removed * prunable)}
            rate = meta["step_seconds"]
            if ticket.arm == "dense" or ticket.arm in counted.scores:
                work, seconds = counted.step * steps + counted.scores.get(ticket.arm, 0), rate * steps
            else:
                last = steps - rewind
                earlier = [steps] + [steps - rewind] * (ticket.level - 1)
                work = counted.step * (sum(earlier) + last) + counted.prune * ticket.level
                seconds = sum(n * r for n, r in zip(earlier, rates, strict=False)) + last * rate
            own |= {"flops": work, "training_seconds": seconds, "step_memory_mib": counted.memory}
            own |= {"compilation_seconds": sum(m["compilation_seconds"] for m in metas[: phase + 1])}
            part = config.copy_and_resolve_references().unlock()
            part.experiment = "imp"
            rows += [ticket.result(part, steps, name, float(value)) for name, value in own.items()]
    return rows


EXPERIMENT = Experiment(
    check, phases=lambda run: [], figures=(sections.table2,), reads=("imp", "early_bird"), parts=PARTS, combine=combine
)
