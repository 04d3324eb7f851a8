"""`evaluate(workdir)`: add metrics to a run that exists, from its kept states, without training anything."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from lotto_jax import config as configuration
from lotto_jax import experiments
from lotto_jax.data import sources
from lotto_jax.experiments import build, measure
from lotto_jax.experiments.run import combine, feed_of
from lotto_jax.metrics.registry import METRICS
from lotto_jax.runs import directory as directories
from lotto_jax.runs import kept
from lotto_jax.runs.directory import RunDirectory


def evaluate(
    workdir: str | Path,
    metrics: Sequence[str] = (),
    classifier: str | Path = "",
    samples: int = 0,
    every: int = 0,
    features: str = "",
    data_dir: str | Path = "",
    force: bool = False,
) -> None:
    """Measure what results.csv lacks; each ticket's rows are there as soon as they are measured, so it can be repeated.

    Args:
      workdir: of a finished or unfinished run.
      metrics: see `config.metrics.names`; this and what follows stands for the run's own configuration where given.
      classifier: run directory of a classifier.
      samples: images a ticket draws.
      every: rounds between measurements.
      features: see `config.metrics.features`.
      data_dir: where TFDS datasets lie.
      force: measure again what is there.

    Raises:
      FileNotFoundError: if Inception features are asked for and their weights are not there.
      RunDirectoryError: if the run is going on, or the data are not those that it had.
      StorageError: if a kept state is damaged; running the configuration again repairs it.
      ValueError: if there is no run, no finished round, or an argument makes no sense for it.
    """
    workdir = Path(workdir)
    stored = directories.config_of(workdir)
    config = stored.copy_and_resolve_references().unlock()
    config.dataset.data_dir = str(data_dir) or stored.dataset.data_dir
    if parts := experiments.of(stored).parts:
        for part in kept.begun(workdir / part for part in parts):
            evaluate(part, metrics, classifier, samples, every, features, data_dir, force)
        feed = feed_of(config, sources.load(**config.dataset))
        with contextlib.closing(RunDirectory(workdir, stored, feed.dataset.fingerprint)) as directory:
            combine(config, feed, directory, parts)
        return
    config.metrics.names = tuple(metrics) or stored.metrics.names
    config.metrics.classifier = str(classifier) or stored.metrics.classifier
    config.metrics.features = features or stored.metrics.features
    config.metrics.samples = samples or stored.metrics.samples
    config.metrics.every = every or stored.metrics.every
    if not config.metrics.names:
        raise ValueError(f"The configuration of {workdir} names no metrics; give --metrics={','.join(METRICS)}.")
    configuration.validate(config.lock())
    dataset = sources.load(**config.dataset)
    objective = build.objective(config, dataset.image_shape, dataset.classes)
    measurer = measure.prepare(config, objective, dataset)
    assert measurer is not None
    with contextlib.closing(RunDirectory(workdir, stored, dataset.fingerprint)), kept.opened(workdir) as store:
        phases = store.steps()
        if gone := sorted(set(range(max(phases))) - set(phases)):
            print(f"The states of rounds {gone[0]} to {gone[-1]} were not kept, so these are not measured.")
        if force:
            measurer.forget(workdir)
        measurer(workdir, store, phases)
