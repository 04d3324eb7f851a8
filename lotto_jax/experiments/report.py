"""`write(workdir)`: the report of a run, with the figures of its experiment."""

from pathlib import Path

from lotto_jax import experiments
from lotto_jax.reports import page
from lotto_jax.runs import directory as directories
from lotto_jax.runs.results import RESULTS


def write(workdir: str | Path) -> str:
    """Write figures/ and report.html of a run, finished or not, and of its parts; return the summary as text.

    Of a directory of runs, say what there is instead.

    Raises:
      ValueError: if the directory holds no run, or no results yet.
    """
    path = Path(workdir)
    if not (path / directories.CONFIG).exists():
        if runs := sorted(file.parent for file in path.glob(f"*/{directories.CONFIG}")):
            return "\n".join(f"{run.name}: {_stands(run) or 'all phases done'}, {run / page.REPORT}" for run in runs)
        raise ValueError(f"There are no results in {path} yet; run `lotto-jax run --workdir={path}` first.")
    experiment = experiments.of(directories.config_of(path))
    begun = [part for part in experiment.parts if (path / part / RESULTS).exists()]
    for part in begun:
        write(path / part)
    return page.write(path, experiment.figures, _stands(path), [path / part / page.REPORT for part in begun])


def _stands(path: Path) -> str:
    """What is left of a run; empty if nothing is."""
    left = []
    for part in experiments.of(directories.config_of(path)).parts or ("",):
        progress = directories.read_progress(path / part)
        if progress is None:
            left.append(f"no {part or 'phase'} yet")
        elif progress.done < progress.phases:
            left.append(f"{progress.last} done, {progress.phases - progress.done} more to come")
    return "; ".join(left)
