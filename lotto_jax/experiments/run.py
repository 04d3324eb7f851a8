"""`run(config, workdir)`: what the command line calls, and what a script or a test calls instead of it."""

import contextlib
from pathlib import Path

from ml_collections import ConfigDict

from lotto_jax import config as configuration
from lotto_jax.data import sources
from lotto_jax.data.sources import Dataset
from lotto_jax.experiments import build, early_bird, imp, measure, table2
from lotto_jax.experiments.run_directory import RunDirectory
from lotto_jax.experiments.tickets import total_steps
from lotto_jax.objectives.state import Objective
from lotto_jax.training.preemption import Preemption


def run(config: ConfigDict, workdir: str | Path, preemption: Preemption | None = None) -> None:
    """Run the experiment of `config` in `workdir`, or go on with it there.

    Raises:
      FileNotFoundError: if `config.metrics` needs Inception weights that are not there.
      ValueError: if a field of the configuration, or the dataset, is not usable.
      RunDirectoryError: if `workdir` is in use or belongs to another configuration.
      StorageError: if checkpoints cannot be written.
      Diverged: if a loss or a weight is no longer finite.
      Preempted: if SIGTERM came; the state is saved.
    """
    configuration.validate(config)
    dataset = sources.load(**config.dataset)
    given = preemption or Preemption()
    root = Path(workdir)
    if config.experiment != "table2":
        _train(config, dataset, root, given, *_prepare(config, dataset))
        return
    table2.check(config)
    prepared = [(part, _prepare(part, dataset)) for part in table2.parts_of(config)]  # all, before the first trains
    with contextlib.closing(RunDirectory(root, config)) as directory:
        for part, (objective, metrics) in prepared:
            _train(part, dataset, root / part.experiment, given, objective, metrics)
            table2.combine(config, dataset, directory)


def _prepare(config: ConfigDict, dataset: Dataset) -> tuple[Objective, measure.Measure | None]:
    """The objective of a configuration that makes sense for the dataset, and what measures its metrics."""
    objective = build.objective(config, dataset.image_shape, dataset.classes, total_steps(config, dataset))
    if config.experiment == "early_bird":
        early_bird.check(config, objective, dataset)
    else:
        imp.check(config, objective)
    return objective, measure.prepare(config, objective, dataset)


def _train(
    config: ConfigDict,
    dataset: Dataset,
    workdir: Path,
    preemption: Preemption,
    objective: Objective,
    metrics: measure.Measure | None,
) -> None:
    with contextlib.closing(RunDirectory(workdir, config)) as directory:
        if config.experiment == "early_bird":
            early_bird.run(config, dataset, directory, preemption, metrics)
        else:
            imp.run(config, objective, dataset, directory, preemption, metrics)
