"""Progress bars of long work: a bar on a terminal, whole lines in a file or a pipe."""

import sys
from typing import Any, TextIO

from tqdm import tqdm

EVERY_SECONDS = 30.0  # between two lines where nobody watches


class _Lines:
    """A stream for tqdm that ends what it redraws with a newline in place of going back to the start of the line."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        """Write what is more than a carriage return as a line."""
        if line := text.strip("\r\n "):
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()


def bar(**settings: Any) -> tqdm:
    """A tqdm bar with `settings`, on stderr."""
    if sys.stderr.isatty():
        return tqdm(dynamic_ncols=True, **settings)
    lines = {"mininterval": EVERY_SECONDS, "maxinterval": EVERY_SECONDS, "file": _Lines(sys.stderr)}
    return tqdm(**settings | lines)


def say(text: str) -> None:
    """A line of its own, above the bar where there is one."""
    tqdm.write(text, file=sys.stdout)
