"""What all faults share: the command in a process of its own, what must come out of it, and the verdict."""

import contextlib
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "scripts" / "faults" / "config.py"
# Everything that must not depend on faults, in any order. Rows of seconds are left out: they are measurements.
CURVES = ("metrics.jsonl", "held_out.jsonl")
OUTCOME = ("results.csv", "metrics.json", *CURVES, "images.safetensors", "channel_masks.safetensors")
LIMIT = 900.0  # seconds that a command may take
MAPS = 20_000  # of the 65,530 memory maps that Linux allows a process; a compiled program holds some


class Verdict(NamedTuple):
    """How one fault ended.

    Attributes:
      fault: its family, the module that tried it.
      experiment: of the run.
      case: what was done to the run.
      passed: whether that ended well.
      how: `same results`, the one sentence, or what went wrong.
    """

    fault: str
    experiment: str
    case: str
    passed: bool
    how: str


class Done(NamedTuple):
    """A command that ended: its exit status and all that it printed."""

    status: int
    output: str


Outcome = dict[str, bytes]


class Bench:
    """Runs to do harm to, each undisturbed once.

    Attributes:
      experiments: whose runs.
      kills, damages: how many an experiment gets at most.
      random: what all moments and places are drawn from.
      root: where the runs lie.
    """

    def __init__(self, experiments: tuple[str, ...], kills: int, damages: int, seed: int, root: Path):
        self.experiments, self.kills, self.damages, self.root = experiments, kills, damages, root
        self.random = random.Random(seed)
        self.startup: dict[str, float] = {}
        self.duration: dict[str, float] = {}
        self.expected: dict[str, Outcome] = {}

    def undisturbed(self, experiment: str) -> Path:
        """The directory of the run that nothing disturbs; made once, after one that fills the compilation cache."""
        path = self.root / f"{experiment}-undisturbed"
        if experiment not in self.expected:
            for name in (f"{experiment}-warming", path.name):
                began = time.monotonic()
                process = self.start(experiment, self.root / name)
                wait((self.root / name / "config.json").exists, process)
                self.startup[experiment] = time.monotonic() - began
                done = self.finish(process)
                if done.status:
                    raise RuntimeError(f"The undisturbed run of {experiment} failed:\n{done.output}")
                self.duration[experiment] = time.monotonic() - began
            self.expected[experiment] = outcome(path)
            shutil.rmtree(self.root / f"{experiment}-warming")
        return path

    def fresh(self, experiment: str, case: str) -> Path:
        """A directory for a run."""
        path = self.root / f"{experiment}-{case}"
        shutil.rmtree(path, ignore_errors=True)
        return path

    def copy(self, source: Path, case: str) -> Path:
        """A copy of a run."""
        path = self.root / case
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(source, path)
        return path

    def took(self, experiment: str, seconds: float) -> None:
        """A run ended after so many seconds: the machine is faster than it was, if that is less than before."""
        faster = min(1.0, seconds / self.duration[experiment])
        self.startup[experiment] *= faster
        self.duration[experiment] *= faster

    def moment(self, experiment: str) -> float:
        """Seconds after the start of a process, uniform over what an undisturbed run does once it has started up."""
        self.undisturbed(experiment)
        return self.random.uniform(self.startup[experiment], self.duration[experiment])

    def start(self, experiment: str, workdir: Path, **settings: Any) -> subprocess.Popen[str]:
        """The command in a process of its own; `settings` go to Popen, and `env` adds to the environment."""
        added: Mapping[str, str] = settings.pop("env", {})
        return subprocess.Popen(
            [sys.executable, "-c", "from lotto_jax.cli import main; main()", *arguments(experiment, workdir)],
            cwd=ROOT,
            env={**os.environ, **added},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **settings,
        )

    def finish(self, process: subprocess.Popen[str]) -> Done:
        """Wait for a command."""
        try:
            output = process.communicate(timeout=LIMIT)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            output = f"{process.communicate()[0]}\nIt took more than {LIMIT:.0f} s."
        return Done(process.returncode, output)

    def verdict(self, fault: str, experiment: str, case: str, workdir: Path, done: Done, without: str = "") -> Verdict:
        """Passed if the command succeeded and the run is as the undisturbed one, `without` one of its files."""
        self.undisturbed(experiment)
        if done.status:
            return Verdict(fault, experiment, case, False, f"exit status {done.status}: {last_line(done.output)}")
        expected, found = self.expected[experiment] | {without: b""}, outcome(workdir) | {without: b""}
        wrong = difference(expected, found) or unreadable(workdir)
        return Verdict(fault, experiment, case, not wrong, wrong or "same results")


def arguments(experiment: str, workdir: Path) -> list[str]:
    """Of the command line."""
    return ["run", f"--config={CONFIG}:{experiment}", f"--workdir={workdir}"]


def here(experiment: str, workdir: Path) -> Done:
    """The command in this process, which has compiled its programs already."""
    import jax

    from lotto_jax import cli

    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > MAPS:
        jax.clear_caches()

    output = io.StringIO()
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = [signal.getsignal(number) for number in numbers]  # the command takes them for itself
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), warnings.catch_warnings():
        warnings.simplefilter("always")
        try:
            cli.main(arguments(experiment, workdir))
        except SystemExit as end:
            return Done(int(end.code or 0), output.getvalue())
        except Exception as error:  # the interpreter would print it and leave
            return Done(1, f"{output.getvalue()}\nTraceback ... {type(error).__name__}: {error}")
        finally:
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)


# What threads of TensorStore print, one in the other's words, of writes that were under way when one has failed.
CLOSED = "RuntimeError: Event loop is closed"


def sentence(done: Done) -> str:
    """The sentence with which a command refused to go on; empty if it did not, or said it otherwise."""
    lines = [line for line in done.output.splitlines() if line.startswith("lotto-jax: ")]
    others = done.output.count("Traceback") - done.output.count(CLOSED)
    refused = done.status == 1 and len(lines) == 1 and not others
    return lines[0].removeprefix("lotto-jax: ") if refused else ""


def last_line(text: str) -> str:
    """The last line that is not empty."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def outcome(workdir: Path) -> Outcome:
    """What a run and its parts found, by path."""
    files = sorted(p for p in workdir.rglob("*") if p.name in OUTCOME or p.match("tickets/*/[!.]*"))
    return {str(p.relative_to(workdir)): _content(p) for p in files}


def _content(path: Path) -> bytes:
    """Of a file, without what may differ."""
    data = path.read_bytes()
    if path.name == "results.csv":
        return b"\n".join(sorted(line for line in data.splitlines() if b"_seconds," not in line))
    if path.name in ("metrics.json", *CURVES):
        return b"\n".join(sorted(data.splitlines()))
    return data


def difference(expected: Outcome, found: Outcome) -> str:
    """The first file in which two outcomes differ, in words; empty if there is none."""
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"{name} is missing"
        if name not in expected:
            return f"{name} should not be there"
        if expected[name] != found[name]:
            return f"{name} is another"
    return ""


def unreadable(workdir: Path) -> str:
    """The first kept state of a run or its parts that cannot be read, in words; empty if there is none."""
    from lotto_jax.training.checkpoints import StorageError, Store

    for directory in sorted({p.parent for p in workdir.rglob("checkpoints/*/*") if p.parent.name != "chunks"}):
        with contextlib.closing(Store(directory)) as store:
            for step in store.steps():
                try:
                    store.restore(step)
                except StorageError as error:
                    return str(error)
    return ""


def kind(path: str) -> str:
    """A path with its numbers, hashes and ticket names taken out."""
    path = re.sub(r"/d/[0-9a-f]+$", "/d/*", path)
    path = re.sub(r"tickets/[^/]+/", "tickets/*/", path)
    path = re.sub(r"(figures|tables|tensorboard)/.*(\.\w+)$", r"\1/*\2", path)
    return re.sub(r"(?<=/)\d+(?=/)", "*", path)


def files_by_kind(workdir: Path) -> dict[str, list[Path]]:
    """The files of a run."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(p for p in workdir.rglob("*") if p.is_file()):
        kinds.setdefault(kind(str(path.relative_to(workdir))), []).append(path)
    return kinds


def wait(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until a condition holds, a process ends, or it takes too long."""
    end = time.monotonic() + LIMIT
    while process.poll() is None and not condition() and time.monotonic() < end:
        time.sleep(0.005)
