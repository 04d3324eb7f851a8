"""Runs of several processes on this machine, really interrupted: `python scripts/hosts_test.py [NAME...]`.

Every process has devices of its own (of the host platform) and speaks to the others over the loopback interface, with
gloo. The table says what was found; the exit status is 1 if something is not as it must be.
"""

import argparse
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lotto_jax.runs import results  # noqa: E402  (the repository root must be importable first)
from scripts.faults import bench  # noqa: E402
from scripts.faults.config import EXPERIMENTS  # noqa: E402

TIMEOUT = "--config.distributed.timeout=30"
SEARCH = (
    "--config=configs/quickstart.py",
    "--config.imp.rounds=1",
    "--config.imp.one_shot_sparsities=()",
    "--config.train.epochs=2",
    "--config.checkpoint.every_seconds=0",
    "--config.evaluation.images=2",
    "--config.log_every=1",
    TIMEOUT,
)
SEEDS = {count: f"--config.seeds={tuple(range(count))}" for count in (2, 4, 8)}
SECONDS = 3600  # that a run may take, on a busy machine
Found = Iterator[tuple[str, bool, str]]  # what was looked at, whether it is as it must be, and what was seen


class Launch:
    """The processes of one run; `path` is its directory."""

    def __init__(
        self,
        path: Path,
        processes: int,
        devices: int,
        *options: str,
        search: Sequence[str] = SEARCH,
        started: int = 0,
    ):
        """Start so many processes with so many devices each, or only the first `started` of them."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            coordinator = f"127.0.0.1:{free.getsockname()[1]}"
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        self.path = path
        self._logs = [path.with_name(f"{path.name}-{processes}x{devices}-{i}.log") for i in range(started or processes)]
        self._processes = []
        for number, log in enumerate(self._logs):
            command = [sys.executable, "-c", "from lotto_jax.cli import main; main()", "run", f"--workdir={path}"]
            command += [*search, *options]
            if processes > 1:
                fields = {"coordinator": coordinator, "processes": processes, "process": number}
                command += [f"--config.distributed.{name}={value}" for name, value in fields.items()]
            with open(log, "w") as out:
                started_process = subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT
                )
            self._processes.append(started_process)

    def in_round(self, number: int) -> "Launch":
        """Wait until training is in a round, and no save is under way."""
        curves, saves, end = self.path / "metrics.jsonl", self.path / "checkpoints", time.monotonic() + SECONDS
        begun = lambda: curves.exists() and f'"round": {number}' in curves.read_text()  # noqa: E731
        while not begun() or any(saves.glob("*/*tmp*")):
            if time.monotonic() > end or any(p.poll() is not None for p in self._processes):
                raise RuntimeError(f"The run ended, or took too long, before round {number}:\n{self.text(0)}")
            time.sleep(0.01)
        return self

    def send(self, process: int, number: signal.Signals) -> "Launch":
        """Send one of the processes a signal."""
        self._processes[process].send_signal(number)
        return self

    def statuses(self, *without: int) -> list[int]:
        """Wait for the processes, but not for those `without`, which are killed then."""
        end = time.monotonic() + SECONDS
        found = [p.wait(end - time.monotonic()) for i, p in enumerate(self._processes) if i not in without]
        for process in without:
            self._processes[process].kill()
            self._processes[process].wait()
        return found

    def text(self, process: int) -> str:
        """What a process has printed."""
        return self._logs[process].read_text()

    def sentences(self, process: int) -> list[str]:
        """What it said of a fault: the lines of lotto-jax, and any other sign of trouble."""
        marks = ("lotto-jax: ", "Preempted", "Traceback", "*** Check failure")
        return [line for line in self.text(process).splitlines() if line.startswith(marks)]


def outcome(path: Path) -> tuple[bytes, dict[str, bytes]]:
    """What must not depend on processes or interruptions: results and masks."""
    masks = {p.parent.name: p.read_bytes() for p in (path / "tickets").glob("*/mask.safetensors")}
    return (path / "results.csv").read_bytes(), masks


def difference(a: Path, b: Path) -> float:
    """The largest relative difference of two runs' results; infinite if they measured other things or masks differ."""
    one, other = ({row[:-1]: row.value for row in results.read(path)} for path in (a, b))
    if one.keys() != other.keys() or outcome(a)[1] != outcome(b)[1]:
        return math.inf
    return max(abs(other[key] / value - 1) for key, value in one.items())


def finished(path: Path, processes: int, devices: int, *options: str) -> tuple[bytes, dict[str, bytes]]:
    """The outcome of a run, or of what is left of one."""
    launch = Launch(path, processes, devices, *options)
    statuses = launch.statuses()
    if any(statuses):
        raise RuntimeError(f"{processes}x{devices} ended with {statuses}:\n{launch.text(0)}")
    return outcome(path)


def same(root: Path) -> Found:
    """Four devices in one, two and four processes: a ticket on each device, or half the batch of a ticket."""
    streamed = "--config.dataset.device_budget_mb=0.0"
    cases = {
        "whole tickets": (SEEDS[4],),
        "split batches": (SEEDS[2],),
        "whole tickets, streamed": (SEEDS[4], streamed),
        "split batches, streamed": (SEEDS[2], streamed),
    }
    for name, options in cases.items():
        found = {n: finished(root / f"{name}-{n}", n, 4 // n, *options) for n in (1, 2, 4)}
        for n in (2, 4):
            yield f"{name}: {n} processes, {4 // n} devices each", found[n] == found[1], "results and masks of 1x4"


def experiments(root: Path) -> Found:
    """Early birds, Table 2, and a search whose kept states a metric measures, as one and as two processes."""
    for name in EXPERIMENTS:
        # A batch that two devices can share: some phases of early birds have a single ticket.
        search = f"--config=scripts/faults/config.py:{name}", SEEDS[2], "--config.train.batch_size=32", TIMEOUT
        found = {}
        for n in (1, 2):
            launch = Launch(root / f"{name}-{n}", n, 2 // n, search=search)
            statuses = launch.statuses()
            if any(statuses):
                raise RuntimeError(f"{name} in {n} processes ended with {statuses}:\n{launch.text(0)}")
            found[n] = bench.outcome(launch.path)
        wrong = bench.difference(found[1], found[2])
        yield f"{name}: 2 processes", not wrong, wrong or "results, curves, masks and images of 1x2"


def sigkill(root: Path) -> Found:
    """SIGKILL of one process; the rest of the run by another number of processes."""
    expected = finished(root / "undisturbed", 1, 4, SEEDS[4])
    for victim in (1, 0):
        path = root / f"victim{victim}"
        launch = Launch(path, 2, 2, SEEDS[4]).in_round(1).send(victim, signal.SIGKILL)
        began = time.monotonic()
        statuses, said = launch.statuses(victim), launch.sentences(1 - victim)
        seconds = time.monotonic() - began
        ours = [line for line in said if line.startswith("lotto-jax: ")]  # after JAX's own words, if process 0 is lost
        named = (statuses, ours) == ([1], said[-1:]) and f"rocess {victim}" in said[-1]
        yield f"SIGKILL to process {victim} of 2", named, f"after {seconds:.0f} s, {statuses}: {' '.join(said)}"
        yield (
            "  ... goes on as 4x1",
            finished(path, 4, 1, SEEDS[4]) == expected,
            "results and masks of an undisturbed run",
        )


def sigstop(root: Path) -> Found:
    """A process that stands still."""
    launch = Launch(root / "stopped", 2, 2, SEEDS[4]).in_round(1).send(1, signal.SIGSTOP)
    statuses, said = launch.statuses(1), launch.sentences(0)
    good = statuses == [1] and len(said) == 1 and "rocess 1" in said[0]
    yield "SIGSTOP to process 1 of 2", good, f"{statuses}: {' '.join(said)}"


def sigterm(root: Path) -> Found:
    """SIGTERM to one process saves on all; eight devices go on as two and as one."""
    finished(root / "undisturbed", 1, 8, SEEDS[8])
    for process in (1, 0):
        path = root / f"process{process}"
        launch = Launch(path, 2, 4, SEEDS[8]).in_round(1).send(process, signal.SIGTERM)
        statuses, said = launch.statuses(), launch.sentences(1 - process)
        good = statuses == [143, 143] and len(said) == 1 and "the state is saved" in said[0]
        yield f"SIGTERM to process {process} of 2", good, f"{statuses}: {' '.join(said)}"
        shutil.copytree(path, root / f"copy{process}")
        for name, processes, devices in ((f"process{process}", 1, 2), (f"copy{process}", 1, 1)):
            again = Launch(root / name, processes, devices, SEEDS[8])
            goes_on = again.statuses() == [0] and "Going on with round 1" in again.text(0)
            apart = difference(root / name, root / "undisturbed")  # other sums: a device has several tickets now
            seen = f"masks of an undisturbed run, results within {apart:.1e}"
            yield f"  ... goes on as {processes}x{devices}", goes_on and apart < 1e-4, seen


def refused(root: Path) -> Found:
    """What stops a run before it begins."""
    launch = Launch(root / "alone", 2, 1, SEEDS[2], started=1)
    statuses, said = launch.statuses(), launch.sentences(0)
    good = statuses == [1] and len(said) == 1 and "Process 1 did not come" in said[0]
    yield "process 1 never comes", good, f"{statuses}: {' '.join(said)}"
    first = Launch(root / "taken", 1, 2, SEEDS[2]).in_round(0)
    second = Launch(root / "taken", 2, 1, SEEDS[2])
    statuses, said = second.statuses(), second.sentences(0) + second.sentences(1)
    first.send(0, signal.SIGTERM).statuses()
    good = statuses == [1, 1] and len(said) == 2 and all("Another run is using" in line for line in said)
    yield "a second run in the directory", good, f"{statuses}: {' '.join(said)}"


CHECKS: dict[str, Callable[[Path], Found]] = {
    f.__name__: f for f in (same, experiments, sigkill, sigstop, sigterm, refused)
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(CHECKS), metavar="NAME", help=", ".join(CHECKS))
    names = parser.parse_args().names
    if unknown := set(names) - set(CHECKS):
        parser.error(f"there is no check {sorted(unknown)[0]!r}; there are {', '.join(CHECKS)}")
    tally = []
    with tempfile.TemporaryDirectory() as root:
        for name in names:
            path = Path(root) / name
            path.mkdir()
            for what, good, seen in CHECKS[name](path):
                tally.append(good)
                print(f"{'ok    ' if good else 'WRONG '} {what:45} {seen}", flush=True)
    print(f"{sum(tally)} of {len(tally)} as they must be")
    sys.exit(not all(tally))


if __name__ == "__main__":
    main()
