"""Which processes of a run have come, by marks that they leave in the run directory before they join each other.

JAX does not say for which process it waits; the storage that all of them share does.
"""

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

MARKS = ".processes"
# By launcher that JAX knows: the variables with a process's number and with how many there are.
LAUNCHERS = (
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES"),
    ("JOB_COMPLETION_INDEX", ""),
)


class Place(NamedTuple):
    """Number of a process, and how many there are; None if only the coordinator knows."""

    number: int
    processes: int | None


def place(distributed: Mapping[str, Any], environment: Mapping[str, str]) -> Place | None:
    """The place of this process by `config.distributed` and environment variables; None if they do not say."""
    if distributed["coordinator"] != "auto":
        return Place(distributed["process"], distributed["processes"])
    for number, count in LAUNCHERS:
        of_a_slice = number == "TPU_WORKER_ID" and "MEGASCALE_COORDINATOR_ADDRESS" in environment
        if environment.get(number, "").isdigit() and not of_a_slice:
            there = environment.get(count, "")
            hosts = len(there.split(",")) if there else None  # TPU_WORKER_HOSTNAMES lists them
            return Place(int(environment[number]), int(there) if there.isdigit() else hosts)
    return None


class Roll:
    """The marks of the processes that wait for each other."""

    def __init__(self, workdir: Path, place: Place, seconds: float):
        """Leave the mark of this process in `workdir`; the processes wait so many seconds for each other."""
        self._marks, self._place, self._seconds = workdir / MARKS, place, seconds
        with contextlib.suppress(OSError):  # the run will say what is wrong with the directory
            self._marks.mkdir(parents=True, exist_ok=True)
            (self._marks / str(place.number)).write_text("")

    def came(self) -> list[int]:
        """Numbers of the processes that wait, or have waited, together with this one."""
        with contextlib.suppress(OSError, ValueError, KeyError):  # whatever is there, the sentence has to be said
            times = {int(mark.name): mark.stat().st_mtime for mark in self._marks.iterdir()}
            # An older mark is of an earlier start, which has ended.
            return sorted(n for n, time in times.items() if time >= times[self._place.number] - self._seconds)
        return []

    def absent(self) -> list[int]:
        """Numbers of the processes that have not come, if it is known how many there are."""
        came = self.came()
        return [n for n in range(self._place.processes or 0) if n not in came] if came else []

    def withdraw(self) -> None:
        """This process gives up: remove its mark, and the directory if it holds nothing else."""
        with contextlib.suppress(OSError):
            (self._marks / str(self._place.number)).unlink()
            os.rmdir(self._marks)
            os.rmdir(self._marks.parent)

    def end(self) -> None:
        """All are here: remove the marks, and the directory if it holds nothing else."""
        shutil.rmtree(self._marks, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(self._marks.parent)
