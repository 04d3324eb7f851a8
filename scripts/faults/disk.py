"""A full disk and a read-only directory: one sentence, and with room again the run goes on to the same results."""

import ctypes
import functools
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from scripts.faults.bench import Bench, Done, Verdict, sentence

SIZES = (1_000, 4_000, 10_000, 30_000)  # bytes that a file may have: what a full disk looks like to a single write
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2  # of linux/prctl.h and linux/capability.h


def count(bench: Bench) -> int:
    """Verdicts that there will be."""
    return len(bench.experiments) * (len(SIZES) + 1)


def run(bench: Bench) -> Iterator[Verdict]:
    """A verdict for every size that files may have, and one for a directory that nobody may write to."""
    for experiment in bench.experiments:
        bench.undisturbed(experiment)
        for size in SIZES:
            limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
            workdir = bench.fresh(experiment, "full")
            done = bench.finish(bench.start(experiment, workdir, preexec_fn=limit))
            yield _verdict(bench, experiment, f"no file may exceed {size:,} bytes", workdir, done)
        workdir = bench.copy(bench.undisturbed(experiment), f"{experiment}-readonly")
        for path in (workdir, *workdir.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        done = bench.finish(bench.start(experiment, workdir, preexec_fn=_drop_override))
        for path in (workdir, *workdir.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield _verdict(bench, experiment, "the directory is read-only", workdir, done)


def _drop_override() -> None:
    """Make permissions hold for root too: what is executed next may not override them."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        if os.geteuid() == 0 and libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "cannot drop a capability")


def _verdict(bench: Bench, experiment: str, case: str, workdir: Path, done: Done) -> Verdict:
    """One sentence, or nothing to say; then the same command with room to write."""
    said = sentence(done)
    if done.status and not said:
        return Verdict("disk", experiment, case, False, f"exit status {done.status}: {done.output[-300:]}")
    if said and workdir.name not in said:
        return Verdict("disk", experiment, case, False, f"neither file nor directory is named: {said}")
    ended = bench.verdict("disk", experiment, case, workdir, bench.finish(bench.start(experiment, workdir)))
    return ended._replace(how=said or ended.how) if ended.passed else ended
