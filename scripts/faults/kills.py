"""SIGKILL at random moments, until a run is done: it ends as if nothing had happened."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.faults.bench import Bench, Done, Verdict


def count(bench: Bench) -> int:
    """Verdicts that there will be."""
    return bench.kills


def run(bench: Bench) -> Iterator[Verdict]:
    """A verdict for every kill: that of the run that was killed, once it is done."""
    for number, experiment in enumerate(bench.experiments):
        share = len(range(number, bench.kills, len(bench.experiments)))
        bench.undisturbed(experiment)
        while share:
            workdir = bench.fresh(experiment, "killed")
            cases: list[str] = []
            done: Done | None = None
            while done is None:
                done = _once(bench, experiment, workdir, cases, kill=len(cases) < share)
            for case in cases:
                yield bench.verdict("kills", experiment, case, workdir, done)
            share -= len(cases)


def _once(bench: Bench, experiment: str, workdir: Path, cases: list[str], kill: bool) -> Done | None:
    """Start the command; None if it was killed, which is added to the cases."""
    process = bench.start(experiment, workdir)
    moment, began = bench.moment(experiment), time.monotonic()
    if kill:
        try:
            process.wait(moment)
            bench.took(experiment, time.monotonic() - began)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            cases.append(f"{_doing(workdir)}, after {moment:.1f} s")
            return None
    return bench.finish(process)


def _doing(workdir: Path) -> str:
    """What a run was at, told from its files."""
    if any(workdir.rglob("checkpoints/*/*tmp*")):
        return "saving"
    if not any(workdir.rglob("metrics.jsonl")):
        return "starting"
    found = [json.loads(p.read_text()) for p in workdir.rglob("progress.json")]
    if found and all(p["done"] == p["phases"] for p in found):
        return "measuring or reporting"
    return f"in phase {sum(p['done'] for p in found) + 1}"
