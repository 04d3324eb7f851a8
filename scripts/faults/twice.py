"""Two runs in one directory: one of them is refused in one sentence, and the other ends as if it were alone."""

import time
from collections.abc import Iterator

from scripts.faults.bench import Bench, Verdict, sentence

TRIES = 2


def count(bench: Bench) -> int:
    """Verdicts that there will be."""
    return TRIES * len(bench.experiments)


def run(bench: Bench) -> Iterator[Verdict]:
    """Both at once, then the second at a random moment of the first."""
    for experiment in bench.experiments:
        for number in range(TRIES):
            # In the first half of the run, or the second would find it done by the time that it has started up.
            wait = (bench.moment(experiment) - bench.startup[experiment]) / 2 if number else 0.0
            workdir = bench.fresh(experiment, "twice")
            first = bench.start(experiment, workdir)
            time.sleep(wait)
            second = bench.start(experiment, workdir)
            ended = [bench.finish(second), bench.finish(first)]
            done = next((end for end in ended if end.status == 0), ended[0])
            verdict = bench.verdict("twice", experiment, f"the second after {wait:.1f} s", workdir, done)
            said = [sentence(end) for end in ended if end.status]
            if verdict.passed:
                how = said[0] if len(said) == 1 else f"{len(said)} of 2 were refused"
                verdict = verdict._replace(passed=len(said) == 1 and "Another run is using" in how, how=how)
            yield verdict
