"""Progress bars of long work: a bar on a terminal, whole lines in a file or a pipe."""

import logging
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

EVERY_SECONDS = 30.0  # between two lines where nobody watches


class _Lines:
    """A stream for tqdm that ends what it redraws with a newline in place of going back to the start of the line."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        """Write what is more than movements of the cursor as a line."""
        if line := text.replace("\x1b[A", "").strip("\r\n "):
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


def quiet() -> None:
    """Leave it to this package to say what goes wrong: TFDS and Orbax narrate, and log what they also raise."""
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def say(text: str) -> None:
    """A line of its own, above the bar where there is one."""
    tqdm.write(text, file=sys.stdout)


def fault(error: BaseException) -> None:
    """Say on stderr, in one sentence, what went wrong."""
    sentence = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:  # Python's own words name no remedy
        sentence = f"{error.filename} cannot be used ({error.strerror}); correct that, or choose another place."
    print(f"lotto-jax: {sentence}", file=sys.stderr, flush=True)


class Lines:
    """Lines of things that go on at once: redrawn on a terminal, elsewhere written each time that they change."""

    def __init__(self, names: Iterable[str]):
        """The lines of these names, from above to below."""
        self._shown = dict.fromkeys(names, "")
        self._bars: dict[str, tqdm] = {}
        if sys.stderr.isatty():
            fixed = {"bar_format": "{desc}", "dynamic_ncols": True}
            self._bars = {name: tqdm(position=i, desc=name, **fixed) for i, name in enumerate(self._shown)}

    def show(self, name: str, text: str) -> None:
        """Say how it stands with one of them."""
        if text == self._shown[name]:
            return
        self._shown[name] = text
        if self._bars:
            self._bars[name].set_description_str(f"{name}: {text}")
        else:
            print(f"{name}: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the lines as they are."""
        for bar in self._bars.values():
            bar.close()
