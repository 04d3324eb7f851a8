"""Transfer of winning tickets between networks and datasets (section 4.4, Figure 8).

A search (`imp`) with one more arm: in round r the tickets `transfer` begin with the mask and the rewound weights that
round r of another search, the source, found for a component of its networks: the decoder of a VAE becomes the generator
of a DCGAN, or the other way round. The other components begin as the dense networks do, and are not pruned.

A transfer ticket is an initialization: it begins at step 0, with fresh optimizer state, and trains as long as the
others. Its weights have the steps up to the source's rewind step behind them, which were trained there. Seeds go
together: the ticket of a seed here is the source's ticket of that seed, or of another (`config.transfer.seed_shift`).

With `config.transfer.takes = "mask"` the mask alone is taken over, and the ticket begins at this search's own snapshot.
A mask of another seed fits its channels only after these are put in the order of this seed's (`config.transfer.align`;
Adnan et al., ICML 2025): by weight matching of the two trained dense networks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from ml_collections import ConfigDict

from lotto_jax import pruning, tickets
from lotto_jax.experiments import imp, transfer_arms
from lotto_jax.experiments.arms import Arm
from lotto_jax.experiments.protocol import Experiment, Phase
from lotto_jax.objectives.state import Objective, TrainState
from lotto_jax.runs import directory as directories
from lotto_jax.runs.tickets import Ticket, names
from lotto_jax.tickets import LoadedTicket
from lotto_jax.training.feed import Feed

if TYPE_CHECKING:
    from lotto_jax.experiments.runner import Run


def check(config: ConfigDict, objective: Objective, feed: Feed) -> None:
    """Raise ValueError on the first field that makes no sense, or unless the source's tickets fit the networks."""
    if len(config.imp.pruned) != 1:
        raise ValueError(f"config.imp.pruned is {tuple(config.imp.pruned)}; a transfer takes one choice of components.")
    imp.check_search(config, objective, feed, ARMS)
    if "transfer" not in config.imp.arms:
        raise ValueError("config.imp.arms must hold 'transfer', which is what this experiment adds to a search.")
    component, [target] = config.transfer.component, config.imp.pruned
    if (component == "both") != (target == "both"):
        raise ValueError(
            f"config.transfer.component is {component!r}, but config.imp.pruned {(target,)}; 'both' goes with 'both'."
        )
    if config.transfer.align and (config.transfer.takes != "mask" or component != target):
        raise ValueError(
            "config.transfer.align puts the channels of a mask in order, of the same networks: it needs "
            "config.transfer.takes = 'mask', and one component in config.transfer.component and config.imp.pruned."
        )
    check_source(config)
    like = jax.eval_shape(objective.init, jax.random.key(0))
    for ticket in transfer_arms.found(config, 1)[:1] if config.imp.rounds else []:
        check_fits(config, ticket, like, transfer_arms.pairs_of(config, objective.components))


def check_source(config: ConfigDict) -> None:
    """Raise ValueError unless `config.transfer.source` has the tickets of all rounds and seeds, equally sparse."""
    source, component = Path(config.transfer.source), config.transfer.component
    if not config.transfer.source:
        raise ValueError("config.transfer.source is empty; set it to the run directory of the other network's search.")
    try:
        fraction = directories.config_of(source).imp.fraction
    except ValueError as error:
        raise ValueError(f"config.transfer.source: {error}") from error
    if fraction != config.imp.fraction:
        raise ValueError(
            f"config.imp.fraction is {config.imp.fraction}, but the search in {source} removed {fraction} a round; "
            "set it to that, so that tickets of a round are equally sparse."
        )
    there = set(names(source))
    for number in range(1, config.imp.rounds + 1):
        for seed in config.seeds:
            if (name := Ticket(component, number, "winning", seed, 0.0).name) not in there:
                raise ValueError(
                    f"config.transfer.source is {source}, which has no ticket {name}; name a component that was pruned "
                    "there (config.transfer.component), seeds and rounds that it has, or finish that run."
                )


def check_fits(config: ConfigDict, ticket: LoadedTicket, like: TrainState, pairs: list[tuple[str, str]]) -> None:
    """Raise ValueError on the first leaf of a source's components that differs from their counterparts in `like`."""
    where = f"{config.transfer.source}/tickets/{ticket.provenance['name']}"
    stats = {name: ticket.model_state.get(name, {}) for name in like.model_state}
    parts: list[tuple[Any, Any]] = [(ticket.params, like.params)]
    parts += [(stats[name], own) for name, own in like.model_state.items()]
    for found, own in parts:
        for source, target in pairs:
            flat = jax.tree_util.tree_leaves_with_path(found.get(source, {}))
            tickets.check({pruning.path_name(p): x for p, x in flat}, own.get(target, {}), f"{where} ({source})")


READS = ("rounds", "fraction", "rule", "rewind_step", "rewind_steps", "pruned", "arms", "score_batches")
ARMS: dict[str, Arm] = {**imp.ARMS, "transfer": Arm("initialization", transfer_arms.transferred)}
OF_MASKS: dict[str, Arm] = {**imp.ARMS, "transfer": Arm("rewind", transfer_arms.mask_transferred)}


def phases(run: Run) -> list[Phase]:
    """The dense networks, and the rounds with tickets of both searches."""
    return imp.search(run, ARMS if run.config.transfer.takes == "ticket" else OF_MASKS)


EXPERIMENT = Experiment(
    check,
    phases,
    figures=imp.EXPERIMENT.figures,
    reads=(*(f"imp.{field}" for field in READS), "transfer"),
)
