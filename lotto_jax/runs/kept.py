"""checkpoints/rounds: the final states of finished phases, read without training anything or building networks."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from jaxtyping import PyTree

from lotto_jax.runs.tickets import Ticket
from lotto_jax.training import checkpoints

CHECKPOINTS, ROUNDS, SNAPSHOTS = "checkpoints", "rounds", "snapshots"


class Kept(NamedTuple):
    """Tickets of a finished phase, their masked params and their model state stacked on the ticket axis."""

    tickets: list[Ticket]
    params: PyTree
    model_state: PyTree


def store(path: Path) -> checkpoints.Store:
    """The finished phases of a run, by number; creates the directory."""
    return checkpoints.Store(path / CHECKPOINTS / ROUNDS)


def tickets_of(phases: checkpoints.Store, phase: int) -> list[Ticket]:
    """What a finished phase trained.

    Raises:
      StorageError: if it is damaged.
    """
    return [Ticket(**fields) for fields in phases.meta(phase)["tickets"]]


def begun(paths: Iterable[Path]) -> list[Path]:
    """Those in which a phase is finished."""
    found = []
    for path in paths:
        with contextlib.suppress(ValueError), opened(path):
            found.append(path)
    return found


@contextlib.contextmanager
def opened(path: Path) -> Iterator[checkpoints.Store]:
    """The finished phases of a run, by number; creates nothing where there are none.

    Raises:
      ValueError: if no phase is finished.
    """
    directory = path / CHECKPOINTS / ROUNDS
    phases = checkpoints.Store(directory, alone=True) if directory.is_dir() else None
    try:
        if phases is None or not phases.steps():
            raise ValueError(f"No round of the run in {path} is finished yet; give its command again first.")
        yield phases
    finally:
        if phases is not None:
            phases.close()


def restore(phases: checkpoints.Store, phase: int) -> Kept:
    """A finished phase, on the first device of this process.

    Raises:
      StorageError: if it is damaged.
    """
    state = phases.restore(phase)
    return Kept(tickets_of(phases, phase), state["params"], state["model_state"])
