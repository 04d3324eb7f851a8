"""A clock that jumps: nothing that a run finds depends on what time it is."""

import os
from collections.abc import Iterator
from pathlib import Path

from scripts.faults.bench import Bench, Verdict

TRIES = 2
JUMPING = Path(__file__).with_name("jumping")  # its sitecustomize.py stands in for Python's clocks


def count(bench: Bench) -> int:
    """Verdicts that there will be."""
    return TRIES * len(bench.experiments)


def run(bench: Bench) -> Iterator[Verdict]:
    """A verdict for every way to jump."""
    for experiment in bench.experiments:
        bench.undisturbed(experiment)
        for seed in range(TRIES):
            paths = os.pathsep.join(filter(None, [str(JUMPING), os.environ.get("PYTHONPATH", "")]))
            workdir = bench.fresh(experiment, "jumping")
            process = bench.start(experiment, workdir, env={"PYTHONPATH": paths, "JUMPING_SEED": str(seed)})
            yield bench.verdict("clock", experiment, f"seed {seed}", workdir, bench.finish(process))
