"""What an experiment is: phases of tickets, what each trains and from where, and the figures of its report.

`runner.run` does everything else: it trains, evaluates, records, keeps and measures every phase, goes on where it was
interrupted, and makes again what is damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ml_collections import ConfigDict

from lotto_jax.objectives.state import Objective, TrainState
from lotto_jax.pruning import masks
from lotto_jax.reports.source import Section, Source
from lotto_jax.runs.results import Result
from lotto_jax.runs.tickets import Ticket
from lotto_jax.training import stacks
from lotto_jax.training.clock import Clock
from lotto_jax.training.feed import Feed
from lotto_jax.training.placement import Placement

if TYPE_CHECKING:
    from lotto_jax.experiments.runner import Run


class Stack(NamedTuple):
    """Tickets stacked on the leading axis of states and masks."""

    tickets: list[Ticket]
    states: TrainState
    mask: masks.Mask


def join(*parts: Stack | None) -> Stack:
    """One stack after the other on the ticket axis; None is an empty one."""
    whole = [part for part in parts if part is not None]
    states, mask = stacks.concatenate([(part.states, part.mask) for part in whole])
    return Stack([ticket for part in whole for ticket in part.tickets], states, mask)


class Start(NamedTuple):
    """What a phase trains, and from where.

    Attributes:
      objective: of its networks.
      head: tickets at step 0, trained alone up to `join`.
      body: tickets at step `join`, where the head joins them, behind the body.
      join: the step.
      looks: steps at which `look` is called.
      look: `(step, states) -> stop`, with the states of all tickets that train then; True ends the phase there.
      kept: what is kept of the final states.
    """

    objective: Objective
    head: Stack | None = None
    body: Stack | None = None
    join: int = 0
    looks: Sequence[int] = ()
    look: Callable[[int, TrainState], bool] = lambda step, states: False
    kept: Callable[[TrainState], TrainState] = lambda states: states

    @property
    def tickets(self) -> int:
        """How many train in the end."""
        return sum(len(stack.tickets) for stack in (self.body, self.head) if stack is not None)


class Trained(NamedTuple):
    """A phase at its end.

    Attributes:
      stack: its tickets.
      step: where it ended, the last step of training or where a look ended it.
      clock: what its chunks took.
      placement: where it trained.
    """

    stack: Stack
    step: int
    clock: Clock
    placement: Placement

    @property
    def step_seconds(self) -> float:
        """Seconds that one ticket's step took its devices."""
        return self.placement.abreast * self.clock.step_seconds


class Record(NamedTuple):
    """What a phase adds to the run directory, apart from the objective's metrics.

    Attributes:
      rows: for every ticket, further values by metric.
      masks: tickets to store for use elsewhere: mask of the one ticket, and provenance.
      meta: kept with the final states.
    """

    rows: Sequence[Mapping[str, float]] = ()
    masks: Sequence[tuple[Ticket, masks.Mask, Mapping[str, Any]]] = ()
    meta: Mapping[str, Any] = {}


class Phase(NamedTuple):
    """Tickets that train together.

    Attributes:
      title: for progress and messages.
      start: what to train; called when all phases before are done.
      tickets: how many train together, in head and body.
      work: ticket-steps, for the progress bar.
      record: what to add to the run directory.
      evaluated: whether the objective's metrics are recorded; not so where training may end early.
      measured: whether the metrics of `config.metrics` are measured of its tickets: always, as `config.metrics.every`
        says, or never.
      drawn: whether its tickets may stand in the image grids; they have the widths of the dense network then.
    """

    title: str
    start: Callable[[], Start]
    tickets: int
    work: int
    record: Callable[[Trained], Record] = lambda trained: Record()
    evaluated: bool = True
    measured: Literal["always", "every", "never"] = "always"
    drawn: bool = False


class Experiment(NamedTuple):
    """An experiment; `lotto_jax.experiments.EXPERIMENTS` has those that `config.experiment` names.

    Attributes:
      check: `(config, objective, feed)`: raises ValueError on the first field that makes no sense.
      phases: `run -> phases`, the dense one first.
      figures: what its report shows, in order.
      reads: the fields of `config.imp`, `config.transfer`, `config.siblings` and `config.early_bird` that it reads, by
        prefix; the others have to stay at their defaults.
      parts: the experiments that it is made of, each a run in a directory below; it has no phases of its own then.
      combine: `(config, feed, path) -> rows` that it adds to the rows of its parts, as far as the parts are done.
    """

    check: Callable[[ConfigDict, Objective, Feed], None]
    phases: Callable[[Run], Sequence[Phase]]
    figures: Sequence[Callable[[Source], list[Section]]]
    reads: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    combine: Callable[[ConfigDict, Feed, Path], list[Result]] = lambda config, feed, path: []
