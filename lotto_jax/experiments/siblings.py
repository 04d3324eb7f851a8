"""Instability analysis (Frankle et al., ICML 2020): copies of a search's winning tickets with other orders of the data.

A run in a directory of its own. In round r every winning ticket that the search, the source, found in round r starts
from the search's snapshot again, `config.siblings.copies` times, each copy with batches and noise of its own from the
rewind step on; phase 0 does so with the dense network. `lotto-jax analyse` measures the barrier between two copies.

The search's own trained ticket is none of the copies: its mask was found with its own order of the data.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import jax
from jaxtyping import Array, Int, Key
from ml_collections import ConfigDict

from lotto_jax import config as configuration
from lotto_jax import pruning
from lotto_jax.experiments.protocol import Experiment, Phase, Start, join
from lotto_jax.objectives.state import Objective, TrainState
from lotto_jax.reports import sections
from lotto_jax.runs import directory as directories
from lotto_jax.runs import kept, tickets
from lotto_jax.runs.tickets import Ticket
from lotto_jax.training import checkpoints, streams
from lotto_jax.training.feed import Feed
from lotto_jax.training.streams import Stream

if TYPE_CHECKING:
    from lotto_jax.experiments.runner import Run

PREFIX = "sibling_"  # of the arms; a number from 1 follows
FREE = ("experiment", "siblings.", "metrics.", "report.", "checkpoint.", "evaluation.", "log_every", "parallel.")


def configured(source: Path, copies: int, every: int) -> ConfigDict:
    """The configuration of the siblings of a search.

    Raises:
      ValueError: if there is no run in `source`.
    """
    config = directories.config_of(source).copy_and_resolve_references().unlock()
    config.experiment, config.metrics.names, config.evaluation.points = "siblings", (), 0
    config.siblings.source, config.siblings.copies, config.siblings.every = str(source), copies, every
    return config.lock()


def rounds_of(source: Path, every: int) -> list[int]:
    """The rounds of a search that are trained again, as far as the search has got; 0 is the dense network."""
    found = {tickets.read(source, name)[1]["round"] for name in tickets.names(source) if "-winning-" in name}
    return [number for number in sorted({0, *found}) if number % every == 0]


def check(config: ConfigDict, objective: Objective, feed: Feed) -> None:
    """Raise ValueError unless `config.siblings.source` is a search of this configuration with a finished round."""
    del objective, feed
    source = Path(config.siblings.source)
    if not config.siblings.source:
        raise ValueError("config.siblings.source is empty; set it to the run directory of a search.")
    try:
        stored = directories.config_of(source)
    except ValueError as error:
        raise ValueError(f"config.siblings.source: {error}") from error
    theirs, mine = (configuration.flatten(configuration.as_dict(c)) for c in (stored, config))
    for key in sorted(theirs.keys() | mine.keys()):
        free = key.startswith(FREE) or key in configuration.NOT_COMPUTED
        if not free and theirs.get(key) != mine.get(key):
            raise ValueError(
                f"config.{key} is {mine.get(key)!r}, but {theirs.get(key)!r} in the search in {source}; siblings train "
                "as their source did, so give the same configuration."
            )
    if rounds_of(source, 1) == [0]:
        raise ValueError(
            f"config.siblings.source is {source}, which has no winning tickets yet; finish a round of that search, of "
            "the experiment 'imp', first."
        )


def rewound(run: Run) -> TrainState:
    """The source's snapshot.

    Raises:
      StorageError: if it is damaged; running the source again repairs it.
    """
    path = Path(run.config.siblings.source) / kept.CHECKPOINTS / kept.SNAPSHOTS
    store = checkpoints.Store(path, alone=True)
    try:
        return store.restore(run.config.imp.rewind_step, run.placement.like(run.fresh))
    finally:
        store.close()


@jax.jit
def other_keys(keys: Key[Array, "tickets"], copy: Int[Array, ""]) -> Key[Array, "tickets"]:
    """The keys of a copy of stacked tickets."""
    return jax.vmap(lambda key: streams.key(key, Stream.SIBLINGS, copy))(keys)


def _mask(run: Run, number: int, pruned: str) -> pruning.Mask:
    """The source's winning masks of a round, one a seed."""
    ones = run.ones(pruned)
    if number == 0:
        return ones
    own = [Ticket(pruned, number, "winning", seed, 0.0).name for seed in run.seeds]
    one = jax.tree.map(lambda m: m[0], ones)
    found = [pruning.unpack(tickets.read(Path(run.config.siblings.source), name)[0], one) for name in own]
    return run.placement.place(pruning.stack(found))


def _phase(run: Run, number: int) -> Phase:
    pruned, step, copies = run.config.imp.pruned[0], run.config.imp.rewind_step, run.config.siblings.copies

    def start() -> Start:
        states, mask = rewound(run), _mask(run, number, pruned)
        parts = []
        for copy in range(1, copies + 1):
            own = states._replace(key=other_keys(states.key, jax.numpy.uint32(copy)))
            parts.append(run.stack(pruned, number, f"{PREFIX}{copy}", own, mask))
        return Start(run.objective, body=join(*parts), join=step)

    count = copies * len(run.seeds)
    title = f"siblings of round {number}" if number else "siblings of the dense networks"
    return Phase(title, start, count, count * (run.steps - step), measured="never")


EXPERIMENT = Experiment(
    check,
    phases=lambda run: [
        _phase(run, number) for number in rounds_of(Path(run.config.siblings.source), run.config.siblings.every)
    ],
    figures=(sections.metrics, sections.curves),
    reads=("imp", "transfer", "siblings"),
)
