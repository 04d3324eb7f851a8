"""Ticket files taken over into a run directory, after a check that they fit the run's networks."""

import shutil
from pathlib import Path

import jax

from lotto_jax import tickets
from lotto_jax.data import sources
from lotto_jax.experiments import build
from lotto_jax.runs import directory as directories
from lotto_jax.runs.tickets import IMPORTED, TICKETS


def import_ticket(workdir: str | Path, path: str | Path) -> Path:
    """Copy a ticket file to tickets/imported/ of a run; returns where it lies.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if there is no run, or the ticket does not fit its networks: names the first leaf that differs.
    """
    workdir, path = Path(workdir), Path(path)
    config = directories.config_of(workdir)
    data = config.dataset
    shape = sources.image_shape(data.name, data.data_dir, data.image_size)
    classes = sources.classes(data.name, data.data_dir, data.image_size)
    objective = build.objective(config, shape, classes)
    tickets.load(path, jax.eval_shape(objective.init, jax.random.key(0)).params)
    target = workdir / TICKETS / IMPORTED / path.name
    if target.exists():
        raise ValueError(f"There is a {target} already; rename the file to import.")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    return target
