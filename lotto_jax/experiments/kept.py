"""Finished phases as a run directory keeps them, read without training anything or building the run's networks."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from jaxtyping import PyTree
from ml_collections import ConfigDict

from lotto_jax import config as configuration
from lotto_jax.experiments.tickets import Ticket
from lotto_jax.training import checkpoints


class Kept(NamedTuple):
    """Tickets of a finished phase, their masked params and their model state stacked on the ticket axis."""

    tickets: list[Ticket]
    params: PyTree
    model_state: PyTree


def config_of(workdir: Path) -> ConfigDict:
    """The configuration of the run in a directory; fields that are younger than the run are at their defaults.

    Raises:
      ValueError: if there is no run.
    """
    try:
        stored = json.loads((workdir / "config.json").read_text())["config"]
    except FileNotFoundError:
        raise ValueError(f"There is no run in {workdir}; give the --workdir of one.") from None
    return configuration.from_dict(stored)


def begun(workdirs: Iterable[Path]) -> list[Path]:
    """Those in which a phase is finished."""
    found = []
    for workdir in workdirs:
        with contextlib.suppress(ValueError), opened(workdir):
            found.append(workdir)
    return found


@contextlib.contextmanager
def opened(workdir: Path) -> Iterator[checkpoints.Store]:
    """The finished phases of a run, by number; creates nothing where there are none.

    Raises:
      ValueError: if no phase is finished.
    """
    directory = workdir / "checkpoints" / "rounds"
    store = checkpoints.Store(directory) if directory.is_dir() else None
    try:
        if store is None or not store.steps():
            raise ValueError(f"No round of the run in {workdir} is finished yet; give its command again first.")
        yield store
    finally:
        if store is not None:
            store.close()


def restore(store: checkpoints.Store, phase: int) -> Kept:
    """A finished phase, on the first device.

    Raises:
      StorageError: if it is damaged.
    """
    tickets = [Ticket(*fields) for fields in store.meta(phase)["tickets"]]
    state = store.restore(phase)
    return Kept(tickets, state["params"], state["model_state"])
