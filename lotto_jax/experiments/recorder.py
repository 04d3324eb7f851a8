"""What a reader sees of training while it goes on: the progress bar, the curves, and TensorBoard events."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lotto_jax import progress
from lotto_jax.runs import curves
from lotto_jax.runs.events import Events
from lotto_jax.runs.tickets import Ticket
from lotto_jax.training import hosts


class Recorder:
    """Records training in a run directory and on the terminal."""

    def __init__(self, path: Path, every: int):
        """`path` is the run directory; curves get a point every so many steps.

        Of several processes the first alone calls `begin`, `record` and `end`.
        """
        self.path, self.every = path, every
        shape = {"unit": " ticket-steps", "unit_scale": True, "smoothing": 0.05, "delay": 1.0, "mininterval": 0.5}
        self.bar = progress.bar(**shape, disable=not hosts.is_first())
        self.events = Events(path)
        self._behind = 0

    def total(self, work: int, done: int) -> None:
        """So many ticket-steps there are, of which earlier starts did some."""
        self.bar.reset(work)
        self.bar.initial = done  # does not count for the speed
        self.behind(done)

    def behind(self, work: int) -> None:
        """The phases so far were so many ticket-steps."""
        self._behind = work
        if not self.bar.disable:  # the jump counts for no speed, unlike what was done since the bar was last drawn
            self.bar.n, self.bar.last_print_n = work, self.bar.last_print_n + work - self.bar.n

    def begin(self, title: str, first: int, last: int, done: int) -> None:
        """A phase begins, or goes on after so many ticket-steps.

        Args:
          title: of the phase.
          first: position that it goes on from; curves are cut there.
          last: its last position.
          done: ticket-steps of it that lie behind.
        """
        curves.cut(self.path, first, last)
        curves.cut(self.path, first - 1, last, curves.HELD_OUT)  # measured again where a phase goes on
        self.behind(self._behind + done)
        self.bar.set_description(title, refresh=False)

    def record(
        self,
        tickets: list[Ticket],
        log: dict[str, np.ndarray],
        step: int,
        end: int,
        base: int,
        shares: Mapping[str, float | None],
    ) -> None:
        """Add the steps from `step` to `end`.

        Args:
          tickets: that were trained.
          log: by metric, [at least end - step, tickets].
          step, end: of the tickets.
          base: position of step 0 in this phase.
          shares: of time or devices, by name; what is None or 0 is not shown.
        """
        points = [
            {"position": base + t + 1, **ticket.columns(), "step": t + 1}
            | {name: float(values[t - step, i]) for name, values in log.items()}
            for t in range(step, end)
            if (t + 1) % self.every == 0
            for i, ticket in enumerate(tickets)
        ]
        curves.append(self.path, points)
        for t in range(step, end):
            if (t + 1) % self.every == 0:
                for i, ticket in enumerate(tickets):
                    scalars = {name: float(values[t - step, i]) for name, values in log.items()}
                    self.events.write(ticket.name, t + 1, scalars)
        name = next(iter(log))
        self.bar.update((end - step) * len(tickets))
        shown = {
            "tickets": str(len(tickets)),
            "removed": f"{max(t.removed for t in tickets):.1%}",
            name: f"{np.mean(log[name][end - step - 1]):.4g}",
            "step": str(end),
        }
        shown |= {name: f"{share:.1%}" for name, share in shares.items() if share}
        self.bar.set_postfix(shown, refresh=False)

    def held_out(self, tickets: list[Ticket], metrics: Mapping[str, np.ndarray], step: int, base: int) -> None:
        """Add what was measured of the held-out split after `step`; arguments as of `record`."""
        points = [
            {"position": base + step, **ticket.columns(), "step": step}
            | {name: float(values[i]) for name, values in metrics.items()}
            for i, ticket in enumerate(tickets)
        ]
        curves.append(self.path, points, curves.HELD_OUT)

    def end(self) -> None:
        """Flush what a phase has written."""
        self.events.close()

    def close(self) -> None:
        """End the bar."""
        self.bar.close()
        self.events.close()
