"""Do harm to tiny runs, and see that they end as if nothing had happened: `python scripts/fault_test.py`.

SIGKILL at random moments; every kind of file truncated, changed in a bit and deleted; a full disk and a read-only
directory; two runs in one directory; a clock that jumps. Prints what went wrong and a tally; exit status 1 if anything
did.
"""

import argparse
import collections
import importlib
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from absl import logging  # noqa: E402  (the repository root must be importable first)

from lotto_jax import progress  # noqa: E402
from scripts.faults.bench import Bench, Verdict  # noqa: E402
from scripts.faults.config import EXPERIMENTS  # noqa: E402

FAULTS = ("kills", "damage", "disk", "twice", "clock")
# Programs that run for a moment need no optimization; the processes share what they compile.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "MPLBACKEND": "agg",
}


def tally(verdicts: list[Verdict]) -> str:
    """Table of how many faults of each family ended well, by experiment."""
    found = collections.Counter((v.fault, v.experiment, v.passed) for v in verdicts)
    rows = list(dict.fromkeys((v.fault, v.experiment) for v in verdicts))
    lines = [f"{'fault':10} {'experiment':12} {'passed':>8} {'failed':>8}"]
    lines += [f"{f:10} {e:12} {found[f, e, True]:8} {found[f, e, False]:8}" for f, e in rows]
    passed = sum(v.passed for v in verdicts)
    return "\n".join([*lines, f"{'all':10} {'':12} {passed:8} {len(verdicts) - passed:8}"])


def main() -> int:
    """Try the faults, print the tally, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="SIGKILLs, shared by the experiments")
    parser.add_argument("--damages", type=int, default=1000, help="most damages an experiment gets, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places")
    parser.add_argument("--only", default=",".join(FAULTS), help="faults to try, separated by commas")
    parser.add_argument("--experiments", default=",".join(EXPERIMENTS), help="whose runs, separated by commas")
    parser.add_argument("--verbose", action="store_true", help="print how every fault ended")
    args = parser.parse_args()
    logging.set_verbosity(logging.ERROR)  # Orbax narrates otherwise
    chosen, experiments = args.only.split(","), tuple(args.experiments.split(","))
    for given, known in ((chosen, FAULTS), (experiments, EXPERIMENTS)):
        if unknown := set(given) - set(known):
            parser.error(f"{sorted(unknown)[0]!r} is none of {', '.join(known)}")
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as directory:
        os.environ.update(ENVIRONMENT)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{directory}/compiled")
        bench = Bench(experiments, args.kills, args.damages, args.seed, Path(directory))
        for name in chosen:
            fault = importlib.import_module(f"scripts.faults.{name}")
            with progress.bar(desc=name, total=fault.count(bench), unit=" faults") as bar:
                for verdict in fault.run(bench):
                    verdicts.append(verdict)
                    bar.update()
                    if args.verbose or not verdict.passed:
                        said = "passed" if verdict.passed else "FAILED"
                        progress.say(f"{said} {verdict.fault} {verdict.experiment}: {verdict.case}: {verdict.how}")
    print(tally(verdicts))
    return 0 if all(verdict.passed for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
