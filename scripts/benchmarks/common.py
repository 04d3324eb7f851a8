"""What every benchmark shares: the row it reports, fair timing, and asking a peer in another environment."""

import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PARITY_PYTHON = ROOT / ".venv-parity" / "bin" / "python"


class Row(NamedTuple):
    """One measurement, and what it is measured against.

    `ratio` is the number that `target` bounds; `better` says from which side. A row without a target only informs.
    """

    name: str
    value: float | None
    unit: str
    peer: str = ""
    ratio: float | None = None
    target: float | None = None
    better: Literal["higher", "lower"] = "higher"

    @property
    def met(self) -> bool | None:
        """Whether the target holds, or None where there is none or nothing was measured."""
        if self.ratio is None or self.target is None:
            return None
        return self.ratio >= self.target if self.better == "higher" else self.ratio <= self.target


def seconds(call: Callable[[], object], repeats: int = 7, warmup: int = 1) -> float:
    """Median wall time of `call` in seconds; `call` must block until its result is ready."""
    return interleaved({"": call}, repeats, warmup)[""]


def interleaved(calls: dict[str, Callable[[], object]], repeats: int = 7, warmup: int = 1) -> dict[str, float]:
    """Median seconds of each call, timed in turn, so that drift of the machine hits all of them alike."""
    for call in calls.values():
        for _ in range(warmup):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def ask_torch(script: str, *arguments: str) -> dict[str, float] | None:
    """Run `scripts/benchmarks/<script>` in .venv-parity and return the JSON object it prints, or None without it."""
    if not PARITY_PYTHON.exists():
        return None
    command = [str(PARITY_PYTHON), str(Path(__file__).parent / script), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])
