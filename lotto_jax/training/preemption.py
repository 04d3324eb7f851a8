"""SIGTERM and Ctrl-C as a request to save and leave, honoured between two chunks of training."""

import signal
from types import FrameType

from lotto_jax.training import hosts


class Preempted(Exception):
    """The run was asked to stop and has saved its state."""


class Preemption:
    """Remembers that a signal came. Python runs the handler once a compilation or a chunk returns.

    Attributes:
      requested: whether a signal came to this process.
      status: exit status of a process that leaves: 128 and the number of the signal.
    """

    requested: bool = False
    status: int = 128 + signal.SIGTERM

    def install(self) -> "Preemption":
        """Handle SIGTERM and SIGINT from now on (main thread only); a second Ctrl-C ends the process at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        return self

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.requested, self.status = True, 128 + signum
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def anywhere(self) -> bool:
        """Whether a signal came to any process of the run, so that all save and leave; each waits for the others."""
        statuses = hosts.everyones(self.status if self.requested else 0)
        self.status = max(statuses) or self.status
        return any(statuses)

    def check(self) -> None:
        """Raise Preempted if a signal came to any process; call where nothing is lost."""
        if self.anywhere():
            raise Preempted
