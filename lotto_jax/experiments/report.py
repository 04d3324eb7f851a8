"""`write(workdir)`: the report of a run, with the figures of its experiment; `merge`: of several runs in one."""

from collections.abc import Sequence
from pathlib import Path

from lotto_jax import experiments
from lotto_jax.reports import merged, page
from lotto_jax.runs import directory as directories
from lotto_jax.runs.results import RESULTS


def write(workdir: str | Path, paper: bool = False) -> str:
    """Write figures/, tables/ and report.html of a run, finished or not, and of its parts; return the summary as text.

    Of a directory of runs, say what there is instead.

    Args:
      workdir: of the run.
      paper: whether to write paper/, the figures as PDF.

    Raises:
      ValueError: if the directory holds no run, or no results yet.
    """
    path = Path(workdir)
    if not (path / directories.CONFIG).exists():
        if runs := runs_in(path):
            return "\n".join(f"{run.name}: {_stands(run) or 'all phases done'}, {run / page.REPORT}" for run in runs)
        raise ValueError(f"There are no results in {path} yet; start or finish its run first.")
    experiment = experiments.of(directories.config_of(path))
    begun = [part for part in experiment.parts if (path / part / RESULTS).exists()]
    for part in begun:
        write(path / part, paper)
    return page.write(path, experiment.figures, _stands(path), [path / part / page.REPORT for part in begun], paper)


def merge(workdirs: Sequence[str | Path], out: str | Path, paper: bool = False) -> str:
    """Write one report of several runs, in the paper's arrangement, into a directory; return the summary as text.

    Args:
      workdirs: of runs, finished or not, or directories of runs; runs without results yet are left out.
      out: where report.html, figures/ and tables/ go.
      paper: whether to write paper/, the figures as PDF.

    Raises:
      ValueError: if none of the directories holds results.
    """
    found: dict[Path, None] = {}
    for path in map(Path, workdirs):
        own = [path] if (path / directories.CONFIG).exists() else runs_in(path)
        if not own:
            raise ValueError(f"There is no run in {path}; give --workdir a run, or a directory of runs.")
        found |= dict.fromkeys(run for run in own if (run / RESULTS).exists())
    if not found:
        raise ValueError(f"There are no results in {', '.join(map(str, workdirs))} yet.")
    names = _short([*found])
    runs = []
    for path, name in zip(found, names, strict=True):
        source = page.source_of(path, _stands(path), out=Path(out) / "runs" / name, pictures=False)
        runs.append(page.reported(name, source, experiments.of(directories.config_of(path)).figures))
    return merged.write(runs, Path(out), paper)


def runs_in(path: Path) -> list[Path]:
    """The runs whose directories lie in a directory, by name."""
    return sorted(file.parent for file in path.glob(f"*/{directories.CONFIG}"))


def _short(paths: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as make them differ."""
    for depth in range(1, 1 + max(len(path.resolve().parts) for path in paths)):
        names = ["-".join(path.resolve().parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


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
