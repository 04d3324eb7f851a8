"""`run(config, workdir)`: what the command line calls, and what a script or a test calls instead of it."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from lotto_jax import config as configuration
from lotto_jax import experiments
from lotto_jax.data import sources
from lotto_jax.data.sources import Dataset
from lotto_jax.experiments import build, measure
from lotto_jax.experiments.runner import Run, directions
from lotto_jax.experiments.trainer import Diverged
from lotto_jax.objectives.state import Objective
from lotto_jax.runs import directory as directories
from lotto_jax.runs import provenance, results
from lotto_jax.runs.directory import RunDirectory
from lotto_jax.training import hosts
from lotto_jax.training.feed import Feed
from lotto_jax.training.preemption import Preempted, Preemption


def run(config: ConfigDict, workdir: str | Path, preemption: Preemption | None = None) -> None:
    """Run the experiment of `config` in `workdir`, or go on with it there.

    Several processes may call it for one run, see `config.distributed`.

    Raises:
      FileNotFoundError: if `config.metrics` needs Inception weights that are not there.
      ValueError: if a field of the configuration, or the dataset, is not usable.
      RunDirectoryError: if `workdir` is in use or belongs to another configuration.
      StorageError: if checkpoints cannot be written.
      Diverged: if a loss or a weight is no longer finite.
      Preempted: if SIGTERM came; the state is saved.
      Lost: if another process of the run is missing or has stopped.
    """
    configuration.validate(config)
    directories.check(Path(workdir))
    hosts.initialize(config.distributed, Path(workdir))
    with hosts.together(config.distributed.timeout):
        _run(config, Path(workdir), preemption or Preemption())


def _run(config: ConfigDict, root: Path, preemption: Preemption) -> None:
    experiment = experiments.of(config)
    check_read(config, experiment.reads)
    if jax.default_backend() == "cpu" and (devices := jax.local_device_count()) > (cores := os.cpu_count() or 1):
        hosts.say(f"{devices} host devices share {cores} cores, which is slower than one device a core.")
    dataset = sources.load(**config.dataset)
    _check_same(config, dataset)
    with contextlib.closing(feed_of(config, dataset)) as feed:
        if not experiment.parts:
            _train(config, feed, root, preemption, *_prepare(config, feed))
            return
        experiment.check(config, build.objective(config, dataset.image_shape, dataset.classes), feed)
        prepared = [(part, _prepare(part, feed)) for part in experiments.parts_of(config)]  # before the first trains
        with contextlib.closing(RunDirectory(root, config, dataset.fingerprint)) as directory:
            for number, (part, (objective, metrics)) in enumerate(prepared, 1):
                _train(part, feed, root / part.experiment, preemption, objective, metrics)
                done = experiment.parts[:number]  # the next may have to be mended first
                hosts.first(combine, config, feed, directory, done)


def _check_same(config: ConfigDict, dataset: Dataset) -> None:
    """Raise ValueError unless all processes have the same configuration and the same data."""
    own = ("distributed.", "dataset.data_dir")  # may differ between hosts
    flat = configuration.flatten(configuration.as_dict(config))
    mine = {key: value for key, value in flat.items() if not key.startswith(own)}
    here = jax.process_index()
    for process, (theirs, data) in enumerate(hosts.everyones((mine, dataset.fingerprint))):
        for key in sorted(mine.keys() | theirs.keys()):
            if mine.get(key) != theirs.get(key):
                raise ValueError(
                    f"config.{key} is {theirs.get(key)!r} in process {process}, but {mine.get(key)!r} in process "
                    f"{here}; give all of them the same configuration."
                )
        if data != dataset.fingerprint:
            raise ValueError(
                f"Process {process} has other images or labels than process {here}; give all of them the same data in "
                "config.dataset.data_dir."
            )


def feed_of(config: ConfigDict, dataset: Dataset) -> Feed:
    """The data of a configuration.

    Raises:
      ValueError: if `config.train` or `config.evaluation` does not suit the dataset.
    """
    examples, batch_size = len(dataset.train.label), config.train.batch_size
    if batch_size > examples:
        raise ValueError(
            f"config.train.batch_size is {batch_size}, more than the {examples} training examples; lower it."
        )
    critic_steps = config.objective.get("critic_steps", 1)
    if isinstance(critic_steps, int) and critic_steps > 0 and batch_size % critic_steps:  # else `build` refuses it
        raise ValueError(
            f"config.train.batch_size is {batch_size}, which {critic_steps} critic steps cannot share equally; "
            "make it a multiple of config.objective.critic_steps."
        )
    if not len(getattr(dataset, config.evaluation.split).label):
        raise ValueError(
            f"config.evaluation.split is {config.evaluation.split!r}, but that split is empty; "
            "set config.dataset.validation_examples or evaluate on the test split."
        )
    return Feed(dataset, batch_size, config.train.epochs, config.evaluation.split)


def combine(config: ConfigDict, feed: Feed, directory: RunDirectory, names: Sequence[str]) -> None:
    """Put the results of these parts of an experiment, as far as there are any, together above them."""
    experiment, path = experiments.of(config), directory.path
    parts = [path / name for name in names]
    provenance.write(path, provenance.merged(parts))
    rows = experiment.combine(config, feed, path)
    results.replace(path, [*rows, *(row for part in parts for row in results.read(part))])


def check_read(config: ConfigDict, reads: tuple[str, ...]) -> None:
    """Raise ValueError if a field is set that the experiment does not read."""
    default = configuration.flatten(configuration.as_dict(configuration.default()))
    for key, value in configuration.flatten(configuration.as_dict(config)).items():
        of_some = key.startswith(("imp.", "early_bird.", "transfer.", "siblings."))
        if of_some and value != default[key] and not key.startswith(reads or ("-",)):
            raise ValueError(
                f"config.{key} is {value!r}, but the experiment {config.experiment!r} does not read it; leave it out."
            )


def _prepare(config: ConfigDict, feed: Feed) -> tuple[Objective, measure.Measure | None]:
    """The objective of a configuration that makes sense for the dataset, and what measures its metrics."""
    dataset = feed.dataset
    objective = build.objective(config, dataset.image_shape, dataset.classes, feed.steps)
    experiments.of(config).check(config, objective, feed)
    state, like = jax.eval_shape(objective.init, jax.random.key(0)), feed.batch
    directions(objective, jax.eval_shape(objective.evaluate, state.params, state.model_state, like, state.key))
    return objective, measure.prepare(config, objective, dataset)


def _train(
    config: ConfigDict,
    feed: Feed,
    workdir: Path,
    preemption: Preemption,
    objective: Objective,
    metrics: measure.Measure | None,
) -> None:
    with contextlib.ExitStack() as closing:
        directory = closing.enter_context(contextlib.closing(RunDirectory(workdir, config, feed.dataset.fingerprint)))
        made = Run(config, experiments.of(config), objective, feed, directory, preemption, metrics)
        closing.callback(made.close)
        try:
            made.run()
        except (Preempted, Diverged):
            raise  # of all processes at once, which can wait for their saves
        except Exception:
            if jax.process_count() > 1:
                closing.pop_all()  # to close is to wait for saves, and these wait for a process that may be gone
            raise
