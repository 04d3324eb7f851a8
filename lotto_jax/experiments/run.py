"""`run(config, workdir)`: what the command line calls, and what a script or a test calls instead of it."""

import contextlib
from pathlib import Path

from ml_collections import ConfigDict

from lotto_jax import config as configuration
from lotto_jax.data import sources
from lotto_jax.experiments import build, early_bird, imp, measure
from lotto_jax.experiments.run_directory import RunDirectory
from lotto_jax.experiments.tickets import total_steps
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
    if config.experiment == "early_bird":
        early_bird.check(config, dataset)
        with contextlib.closing(RunDirectory(Path(workdir), config)) as directory:
            early_bird.run(config, dataset, directory, given)
        return
    objective = build.objective(config, dataset.image_shape, dataset.classes, total_steps(config, dataset))
    imp.check(config, objective)
    metrics = measure.prepare(config, objective, dataset)
    with contextlib.closing(RunDirectory(Path(workdir), config)) as directory:
        imp.run(config, objective, dataset, directory, given, metrics)
