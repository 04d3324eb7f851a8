"""SIGTERM and Ctrl-C as a request to save and leave, honoured between two chunks of training."""

import signal
from types import FrameType


class Preempted(Exception):
    """The run was asked to stop and has saved its state."""


class Preemption:
    """Remembers that a signal came. Python runs the handler once a compilation or a chunk returns.

    Attributes:
      requested: whether to save and leave.
      status: exit status of a process that does: 128 and the number of the signal.
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

    def check(self) -> None:
        """Raise Preempted if a signal came; call where nothing is lost."""
        if self.requested:
            raise Preempted
