"""`write(workdir)`: the report of a run, with the figures of its experiment."""

from pathlib import Path

from lotto_jax import experiments
from lotto_jax.reports import page
from lotto_jax.runs import directory as directories
from lotto_jax.runs.results import RESULTS


def write(workdir: str | Path) -> str:
    """Write figures/ and report.html of a run, finished or not, and of its parts; return the summary as text.

    Raises:
      ValueError: if the directory holds no run, or no results yet.
    """
    path = Path(workdir)
    if not (path / directories.CONFIG).exists():
        raise ValueError(f"There are no results in {path} yet; run `lotto-jax run --workdir={path}` first.")
    experiment = experiments.of(directories.config_of(path))
    left = []
    begun = [part for part in experiment.parts if (path / part / RESULTS).exists()]
    for part in begun:
        write(path / part)
    for part in experiment.parts or ("",):
        progress = directories.read_progress(path / part)
        if progress is None and part:
            left.append(f"no {part} yet")
        elif progress is not None and progress.done < progress.phases:
            left.append(f"{progress.last} done, {progress.phases - progress.done} more to come")
    return page.write(path, experiment.figures, "; ".join(left), [path / part / page.REPORT for part in begun])
