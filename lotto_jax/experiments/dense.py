"""The dense network of every seed, from initialization to the last step: the first phase of every experiment.

As an experiment of its own it trains classifiers, whose features and accuracies other runs measure with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lotto_jax.experiments.protocol import Experiment, Phase, Start
from lotto_jax.objectives.state import TrainState
from lotto_jax.reports import sections

if TYPE_CHECKING:
    from lotto_jax.experiments.runner import Run


def phase(run: Run, snapshots: Sequence[int] = ()) -> Phase:
    """The dense phase; the states at the steps `snapshots` are kept for tickets to start from."""

    def look(step: int, states: TrainState) -> bool:
        run.keep_snapshot(step, states)
        return False

    def start() -> Start:
        head = run.stack("both", 0, "dense", run.fresh, run.ones("both"))
        return Start(run.objective, head, looks=snapshots, look=look)

    return Phase("the dense networks", start, len(run.seeds), len(run.seeds) * run.steps, measured="every", drawn=True)


EXPERIMENT = Experiment(
    check=lambda config, objective, feed: None,
    phases=lambda run: [phase(run)],
    figures=(sections.metrics, sections.curves, sections.pictures),
)
