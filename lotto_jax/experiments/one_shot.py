"""One-shot tickets: pruned at once from the trained dense network and rewound; the last phase of a search, and an
experiment of their own (Figure 3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lotto_jax.experiments import dense, selections
from lotto_jax.experiments.protocol import Experiment, Phase, Record, Start, Trained, join
from lotto_jax.objectives.state import Objective
from lotto_jax.reports import convergence, sections
from lotto_jax.training import hosts
from lotto_jax.training.feed import Feed

if TYPE_CHECKING:
    from lotto_jax.experiments.runner import Run


def check_sparsities(config: ConfigDict, objective: Objective) -> None:
    """Raise ValueError on a sparsity that is none, or that leaves nothing."""
    for sparsity in config.imp.one_shot_sparsities:
        if not isinstance(sparsity, float) or not 0 < sparsity < 1:
            raise ValueError(f"config.imp.one_shot_sparsities holds {sparsity}; each must lie between 0 and 1.")
        for weights in selections.check_pruned(config, objective).values():
            if round(sparsity * weights) == weights:
                raise ValueError(
                    f"config.imp.one_shot_sparsities holds {sparsity}, which leaves none of {weights} weights."
                )


def check(config: ConfigDict, objective: Objective, feed: Feed) -> None:
    """Raise ValueError on the first field of `config.imp` that makes no sense."""
    if not config.imp.one_shot_sparsities:
        raise ValueError("config.imp.one_shot_sparsities is empty; it takes the sparsities to prune to, as (0.5, 0.9).")
    if len(config.imp.pruned) != 1:
        raise ValueError(f"config.imp.pruned is {tuple(config.imp.pruned)}; one-shot tickets take one choice.")
    check_sparsities(config, objective)
    selections.check_rewind(config, feed.steps)


def masks_of(run: Run, trained: Trained) -> Record:
    """The masks of winning and one-shot tickets, for use elsewhere."""
    found, rewind = [], run.config.imp.rewind_step
    host = hosts.gathered(trained.stack.mask)
    for i, ticket in enumerate(trained.stack.tickets):
        if ticket.arm in ("winning", "one_shot"):
            prunable = run.ones(ticket.pruned)
            mask = jax.tree.map(lambda m, one, i=i: m[i] if one.ndim > 1 else np.True_, host, prunable)
            parent = "dense"
            if ticket.arm == "winning" and ticket.level > 1:
                parent = ticket._replace(level=ticket.level - 1).name
            found.append((ticket, mask, {"parent": parent, "start": rewind}))
    return Record(masks=found)


def phase(run: Run, drawn: bool = False) -> list[Phase]:
    """The tickets of `config.imp.one_shot_sparsities`, in the first entry of `config.imp.pruned`, if there are any."""
    imp = run.config.imp
    if not imp.one_shot_sparsities:
        return []

    def start() -> Start:
        pruned, params, rewound = imp.pruned[0], run.finished(0).params, run.snapshot(imp.rewind_step)
        parts = []
        for sparsity in imp.one_shot_sparsities:
            mask = selections.prune_to(params, run.ones(pruned), jnp.float32(sparsity))
            parts.append(run.stack(pruned, 1, "one_shot", rewound, mask))
        return Start(run.objective, body=join(*parts), join=imp.rewind_step)

    tickets = len(run.seeds) * len(imp.one_shot_sparsities)
    return [
        Phase(
            "one-shot tickets",
            start,
            tickets,
            tickets * (run.steps - imp.rewind_step),
            lambda trained: masks_of(run, trained),
            drawn=drawn,
        )
    ]


EXPERIMENT = Experiment(
    check,
    phases=lambda run: [dense.phase(run, [run.config.imp.rewind_step]), *phase(run, drawn=True)],
    figures=(sections.metrics, convergence.stability, sections.curves, convergence.convergence, sections.pictures),
    reads=("imp.one_shot_sparsities", "imp.pruned", "imp.rewind_step"),
)
