"""The arm `transfer`: tickets, or their masks alone, from another search (see `transfer`)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from lotto_jax import pruning, tickets
from lotto_jax.analysis import matching
from lotto_jax.experiments import compacting
from lotto_jax.experiments.arms import Round
from lotto_jax.objectives.state import TrainState
from lotto_jax.pruning.dependency import Group
from lotto_jax.runs import kept
from lotto_jax.runs.tickets import Ticket
from lotto_jax.tickets import LoadedTicket
from lotto_jax.training import hosts

if TYPE_CHECKING:
    from lotto_jax.experiments.runner import Run


def pairs_of(config: ConfigDict, components: tuple[str, ...]) -> list[tuple[str, str]]:
    """(component of the source, component here) of all that is taken over."""
    component, [target] = config.transfer.component, config.imp.pruned
    return [(c, c) for c in components] if component == target == "both" else [(component, target)]


def _seeds_there(config: ConfigDict) -> list[int]:
    """The seed there whose ticket each seed here takes."""
    return [config.seeds[(i + config.transfer.seed_shift) % len(config.seeds)] for i in range(len(config.seeds))]


def found(config: ConfigDict, number: int) -> list[LoadedTicket]:
    """The source's winning tickets of a round, one a seed here."""
    own = [Ticket(config.transfer.component, number, "winning", seed, 0.0).name for seed in _seeds_there(config)]
    return tickets.of_run(Path(config.transfer.source), own)


def moved(into: PyTree, found: PyTree, pairs: list[tuple[str, str]]) -> PyTree:
    """`{component: tree}` with the components of `found` at the place of those that they are paired with."""
    return {**into, **{target: found[source] for source, target in pairs if target in into}}


def transferred(run: Run, here: Round) -> tuple[TrainState, pruning.Mask]:
    """The source's tickets of this round, in networks that begin as the dense ones do."""
    own_tickets, pairs = found(run.config, here.number), pairs_of(run.config, run.objective.components)
    params, mask, stats = (
        _stacked([getattr(t, part) for t in own_tickets]) for part in ("params", "mask", "model_state")
    )
    own = {name: moved(tree, stats.get(name, {}), pairs) for name, tree in run.fresh.model_state.items()}
    states = run.fresh._replace(params=moved(run.fresh.params, params, pairs), model_state=own)
    return run.placement.place((states, moved(here.mask, mask, pairs)))


def mask_transferred(run: Run, here: Round) -> tuple[TrainState, pruning.Mask]:
    """The source's masks of this round, on this search's own snapshot."""
    masks = [ticket.mask for ticket in found(run.config, here.number)]
    if run.config.transfer.align:
        masks = [
            matching.permute({"params": mask}, groups, order)["params"]
            for mask, (groups, order) in zip(masks, _alignments(run), strict=True)
        ]
    pairs = pairs_of(run.config, run.objective.components)
    return here.rewound, run.placement.place(moved(here.mask, _stacked(masks), pairs))


def _stacked(trees: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


@functools.cache  # a run lives as long as its process
def _alignments(run: Run) -> list[tuple[Sequence[Group], list[matching.Permutation]]]:
    """For every seed, the groups of channels, and the order that brings the source's next to this run's."""
    with kept.opened(Path(run.config.transfer.source)) as phases:
        there = kept.restore(phases, 0)
    here, numbers = run.finished(0), [ticket.seed for ticket in there.tickets]
    groups = compacting.channel_groups(run.objective, run.feed.batch).prunable
    own = hosts.gathered(here.params)
    alignments: list[tuple[Sequence[Group], list[matching.Permutation]]] = []
    for i, seed in enumerate(_seeds_there(run.config)):
        theirs, ours = (
            {"params": jax.tree.map(lambda x, j=j: np.asarray(x[j]), tree)}
            for tree, j in ((there.params, numbers.index(seed)), (own, i))
        )
        alignments.append((groups, matching.match(groups, theirs, ours)))
    return alignments
