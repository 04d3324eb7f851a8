"""Iterative magnitude pruning with rewinding (section 3.1): the search for winning tickets and its controls.

The dense phase keeps the state of every seed at the rewind step, the snapshot. Round r prunes the winning tickets that
round r - 1 trained by `fraction`, starts them from the snapshot again, and trains them together with the control arms.
A last phase trains the one-shot tickets.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lotto_jax import pruning
from lotto_jax.experiments import arms, dense, one_shot, prune_at_init, selections
from lotto_jax.experiments.arms import Arm, Round
from lotto_jax.experiments.protocol import Experiment, Phase, Start
from lotto_jax.objectives.state import Objective, TrainState
from lotto_jax.reports import analysis, convergence, sections
from lotto_jax.training import hosts, stacks
from lotto_jax.training.feed import Feed

if TYPE_CHECKING:
    from lotto_jax.experiments.runner import Finished, Run

ARMS: dict[str, Arm] = {
    "winning": Arm("rewind", arms.winning),
    "random": Arm("initialization", arms.random),
    "random_pruned": Arm("rewind", arms.random_pruned),
    **prune_at_init.ARMS,
}


def check(config: ConfigDict, objective: Objective, feed: Feed) -> None:
    """Raise ValueError on the first field of `config.imp` that makes no sense for the networks or the data."""
    check_search(config, objective, feed, ARMS)
    one_shot.check_sparsities(config, objective)


def check_search(config: ConfigDict, objective: Objective, feed: Feed, known: Collection[str]) -> None:
    """Raise ValueError on the first field of the rounds of a search with `known` arms that makes no sense."""
    selections.check_arms(config, known)
    if "winning" not in config.imp.arms:
        raise ValueError("config.imp.arms must hold 'winning'; the other arms are as sparse as its tickets.")
    prune_at_init.check_arms(config)
    selections.rule_of(config)
    selections.check_rounds(config, objective)
    selections.check_rewind(config, feed.steps)


def _winning(run: Run, number: int, pruned: str) -> pruning.Mask:
    """The mask of the winning tickets of a round: what the phase before trained, pruned further."""
    before: Finished = run.finished(number - 1)
    params, mask = before.params, run.ones(pruned)
    if number > 1:
        chosen = jnp.asarray([i for i, t in enumerate(before.tickets) if (t.pruned, t.arm) == (pruned, "winning")])
        params, kept = stacks.take((params, before.mask), chosen)
        mask = jax.tree.map(lambda m, one: m if one.ndim > 1 else one, kept, mask)  # prunable in these components only
    mask = selections.prune(selections.rule_of(run.config), params, mask, jnp.float32(run.config.imp.fraction))
    if empty := stacks.emptied(mask):
        listed = f"{', '.join(empty[:3])}{f' and {len(empty) - 3} more' if len(empty) > 3 else ''}"
        hosts.say(f"Round {number}, {pruned} pruned: no weight is left in {listed} of some seed.")
    return mask


def _round(run: Run, number: int, known: Mapping[str, Arm]) -> Phase:
    imp = run.config.imp
    chosen = {name: known[name] for name in imp.arms}

    def start() -> Start:
        rewound: TrainState = run.snapshot(imp.rewind_step)
        rounds = []
        for j, pruned in enumerate(imp.pruned):
            mask = _winning(run, number, pruned)
            salt = selections.salt(run.config, number, j)
            rounds.append(Round(pruned, number, salt, mask, stacks.sparsity(mask), rewound))
        head, body = arms.stacks_of(run, chosen, rounds)
        return Start(run.objective, head, body, imp.rewind_step)

    return Phase(
        f"round {number} of {imp.rounds}",
        start,
        len(imp.pruned) * len(chosen) * len(run.seeds),
        arms.work(run, chosen, len(imp.pruned), imp.rewind_step),
        record=lambda trained: one_shot.masks_of(run, trained),
        measured="every" if number < imp.rounds else "always",
        drawn=True,
    )


def search(run: Run, known: Mapping[str, Arm]) -> list[Phase]:
    """The dense networks, and the rounds, each with the arms of `known` that `config.imp.arms` names."""
    rounds = [_round(run, number, known) for number in range(1, run.config.imp.rounds + 1)]
    return [dense.phase(run, selections.rewind_steps(run.config)), *rounds]


def phases(run: Run) -> list[Phase]:
    """The dense networks, the rounds, and the one-shot tickets."""
    return [*search(run, ARMS), *one_shot.phase(run)]


EXPERIMENT = Experiment(
    check,
    phases,
    (
        *(sections.metrics, convergence.stability, sections.curves, convergence.convergence, sections.pictures),
        analysis.analysis,
    ),
    reads=("imp",),
)
