"""SIGTERM as a request to save and leave, honoured between two chunks of training."""

import signal
from types import FrameType

EXIT_STATUS = 143  # 128 + SIGTERM


class Preempted(Exception):
    """The run was asked to stop and has saved its state."""


class Preemption:
    """Remembers that SIGTERM came. Python runs the handler once a compilation or a chunk returns."""

    def __init__(self) -> None:
        self.requested = False

    def install(self) -> "Preemption":
        """Handle SIGTERM from now on (main thread only)."""
        signal.signal(signal.SIGTERM, self._handle)
        return self

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True

    def check(self) -> None:
        """Raise Preempted if SIGTERM came; call where nothing is lost."""
        if self.requested:
            raise Preempted
