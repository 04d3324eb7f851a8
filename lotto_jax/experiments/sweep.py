"""Several configurations at once: each a process of its own, with a share of the devices and a directory of its own.

A queue hands the next configuration to devices that become free. Every run is resumable by itself, so a sweep keeps
nothing but the word that a run is finished.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from lotto_jax import experiments, progress
from lotto_jax.reports.page import REPORT
from lotto_jax.runs import directory as directories
from lotto_jax.runs import finished
from lotto_jax.runs.files import DamagedError
from lotto_jax.training import shares
from lotto_jax.training.preemption import Preemption

POLL_SECONDS = 0.5  # between two looks at the processes
COMMAND = (sys.executable, "-c", "from lotto_jax.cli import main; main()", "run")


class Job(NamedTuple):
    """A configuration of a sweep.

    Attributes:
      source: FILE[:VARIANT].
      overrides: `--config.FIELD=VALUE`, of fields that it has.
      config: what these make.
    """

    source: str
    overrides: list[str]
    config: ConfigDict

    @property
    def name(self) -> str:
        """The directory of its run: `dcgan_cifar10-cpu` for `configs/dcgan_cifar10.py:cpu`."""
        file, _, variant = self.source.partition(":")
        return f"{Path(file).stem}-{variant}" if variant else Path(file).stem


class _Child(NamedTuple):
    process: subprocess.Popen
    share: range
    log: Path
    begin: int  # of its part of the log, in bytes


def read(file: Path) -> list[str]:
    """The configurations that a sweep file lists, FILE[:VARIANT] one a line; `#` begins a comment.

    Raises:
      ValueError: if it lists none.
      OSError: if it cannot be read.
    """
    lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    found = [line for line in lines if line]
    if not found:
        raise ValueError(f"--sweep is {file}, which lists no configuration; write one FILE[:VARIANT] a line.")
    return found


def tickets(config: ConfigDict) -> int:
    """How many tickets the largest phase of a configuration trains together."""
    imp, reads = config.imp, experiments.of(config).reads
    rounds = len(imp.pruned) * len(imp.arms) if {"imp", "imp.arms"} & set(reads) and imp.rounds else 1
    one_shot = len(imp.one_shot_sparsities) if {"imp", "imp.one_shot_sparsities"} & set(reads) else 1
    return len(config.seeds) * max(rounds, one_shot)


def run(jobs: Sequence[Job], root: Path, share: int, preemption: Preemption) -> dict[str, str]:
    """Run configurations, or go on with them, each in `root/NAME` with its output in `root/NAME.log`.

    Of several processes that share `root`, each takes its part of the configurations; see `config.distributed`.

    Args:
      jobs: the configurations.
      root: directory of their directories, made if missing.
      share: devices that each gets; 0: as many as it has tickets, at most all.
      preemption: a signal to this process goes to all runs, and they save and leave.

    Returns:
      Why they failed, by name.

    Raises:
      ValueError: if two of them have the same name, `share` does not divide the devices, or `root` is no directory.
      Lost: if the other processes do not come.
    """
    _check_names(jobs)
    directories.check(root)
    host = shares.look(jobs[0].config.distributed, root)
    mine = {job.name: job for job in jobs[host.process :: host.processes]}
    sizes = {name: shares.size(tickets(job.config), host, share) for name, job in mine.items()}
    waiting = {name: sizes[name] for name, job in mine.items() if not finished.is_finished(root / name, job.config)}
    root.mkdir(parents=True, exist_ok=True)
    running: dict[str, _Child] = {}
    failed: dict[str, str] = {}
    lines = progress.Lines(mine)
    for name in mine:
        lines.show(name, "waiting" if name in waiting else f"done, {root / name / REPORT}")
    stopping = False
    try:
        while running or (waiting and not preemption.requested):
            if not preemption.requested:
                busy = {i for child in running.values() for i in child.share}
                for name, devices in shares.starts(waiting, busy, len(host.devices)).items():
                    del waiting[name]
                    running[name] = _start(mine[name], root, host, devices)
            elif not stopping:
                stopping = True
                for child in running.values():
                    child.process.terminate()
            time.sleep(POLL_SECONDS)
            for name, child in list(running.items()):
                status = child.process.poll()
                if status is None:
                    lines.show(name, "saving" if stopping else _running(mine[name], root / name, host, child.share))
                    continue
                del running[name]
                if status == 0:
                    try:
                        finished.declare(root / name, mine[name].config)
                        lines.show(name, f"done, {root / name / REPORT}")
                    except OSError as error:
                        failed[name] = str(error)
                        lines.show(name, f"failed: {error}")
                elif stopping and status != 1:
                    lines.show(name, "stopped")
                else:
                    failed[name] = _reason(child, status)
                    lines.show(name, f"failed: {failed[name]}")
    finally:
        lines.close()
        for child in running.values():
            child.process.kill()
            child.process.wait()
    return failed


def _check_names(jobs: Sequence[Job]) -> None:
    seen: dict[str, str] = {}
    for job in jobs:
        if job.name in seen:
            raise ValueError(
                f"{seen[job.name]} and {job.source} would both run in {job.name}; leave one out, or rename its file."
            )
        seen[job.name] = job.source


def _start(job: Job, root: Path, host: shares.Host, share: range) -> _Child:
    log = root / f"{job.name}.log"
    overrides = [o for o in job.overrides if not o.startswith("--config.distributed.")]
    own = [f"--config={job.source}", f"--workdir={root / job.name}", *overrides, "--config.distributed.coordinator=off"]
    environment = os.environ | shares.environment(host, share, os.environ)
    with open(log, "ab") as out:
        process = subprocess.Popen([*COMMAND, *own], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment)
        return _Child(process, share, log, out.tell())


def _running(job: Job, path: Path, host: shares.Host, share: range) -> str:
    where = host.platform
    if host.platform != "cpu":
        where += f" {','.join(str(host.devices[i]) for i in share)}"
    states = []
    for part in experiments.of(job.config).parts or ("",):
        with contextlib.suppress(DamagedError):  # the run itself mends it
            if found := directories.read_progress(path / part):
                states.append(f"{part} {found.done} of {found.phases} phases, {found.last} done".strip())
    return f"running on {where}: {'; '.join(states) or 'no phase done yet'}"


def _reason(child: _Child, status: int) -> str:
    """Why a run failed: the sentence that it ended with, or the last line that it wrote."""
    said = [
        line for line in child.log.read_bytes()[child.begin :].decode(errors="replace").splitlines() if line.strip()
    ]
    sentences = [line.removeprefix("lotto-jax: ") for line in said if line.startswith("lotto-jax: ")]
    if status < 0:
        sentence = f"It was killed by signal {-status}."
    else:
        sentence = (sentences or said or [f"It ended with exit status {status}."])[-1]
    return f"{sentence} ({child.log})"
