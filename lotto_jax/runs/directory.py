"""A run's directory: its lock, its configuration, and how far it is."""

import fcntl
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, NamedTuple

from ml_collections import ConfigDict

from lotto_jax import config as configuration
from lotto_jax.runs.files import write_atomically
from lotto_jax.training import hosts

CONFIG, LOCK, PROGRESS = "config.json", ".lock", "progress.json"
VERSIONED = ("lotto_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class RunDirectoryError(Exception):
    """The directory cannot be used for this run."""


class Progress(NamedTuple):
    """Phases that are done, phases there are, and what the last one that is done was."""

    done: int
    phases: int
    last: str


class RunDirectory:
    """Owner of one run's files. Opening it takes its lock, for as long as the process lives.

    Several processes of a run open it together, on storage that they share; the first takes the lock and writes.
    """

    def __init__(self, path: Path, config: ConfigDict, data: str = ""):
        """Create or reopen `path` for `config` and data of this fingerprint (see `Dataset`; empty: any).

        Raises:
          RunDirectoryError: if another run has it open, or it holds a run of another configuration or of other data;
            if it is an object store, or the processes do not see the same directory.
        """
        if scheme := re.match(r"(\w+):/", str(path)):
            raise RunDirectoryError(
                f"--workdir is {path}, an object store ({scheme[1]}), where files can be neither locked nor appended "
                "to; choose a directory, which all hosts mount, and copy it there afterwards."
            )
        self.path = path
        self._lock: IO[str] | None = None
        hosts.first(self._take, config, data)
        if not (path / CONFIG).exists():
            raise RunDirectoryError(f"--workdir is {path}, which is another directory on the first host; share it.")

    def _take(self, config: ConfigDict, data: str) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / LOCK, "w")  # noqa: SIM115  (held until the process ends)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RunDirectoryError(
                f"Another run is using {self.path}; wait for it or choose another --workdir."
            ) from None
        try:
            self._claim(config, data)
        except RunDirectoryError:
            self._lock.close()
            raise

    def _claim(self, config: ConfigDict, data: str) -> None:
        """Make the directory this configuration's, or check that it is."""
        stored = self.path / CONFIG
        values = configuration.as_dict(config)
        if stored.exists():
            before = json.loads(stored.read_text())
            self._compare(before["config"], values)
            if data and before.get("data", data) != data:
                raise RunDirectoryError(
                    f"{self.path} holds a run on other images or labels than config.dataset.data_dir "
                    f"({config.dataset.data_dir!r}) has now; choose another --workdir, or the data it was started with."
                )
        elif any(p.name != LOCK and p.suffix != ".tmp" for p in self.path.iterdir()):
            raise RunDirectoryError(f"{self.path} holds other files but no run; choose an empty --workdir.")
        else:
            versions = {name: version(name) for name in VERSIONED}
            content = {"config": values, "digest": configuration.digest(config), "data": data, "versions": versions}
            write_atomically(stored, json.dumps(content, indent=2) + "\n")

    def _compare(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        # A field that is younger than the run was at its default there. Those of the open sections have no default.
        defaults = configuration.flatten(configuration.as_dict(configuration.default()))
        before = {k: v for k, v in defaults.items() if k.split(".")[0] not in configuration.OPEN_SECTIONS}
        before |= configuration.flatten(old)
        now = configuration.flatten(new)
        # Where a run's inputs lie and what is measured of its tickets may change between starts.
        keys = sorted((before.keys() | now.keys()) - set(configuration.NOT_COMPUTED))
        changed = [
            f"{key} ({before.get(key, 'absent')} there, {now.get(key, 'absent')} here)"
            for key in keys
            if before.get(key) != now.get(key)
        ]
        if changed:
            raise RunDirectoryError(
                f"{self.path} holds a run of another configuration: {', '.join(changed)}. "
                "Choose another --workdir, or the configuration it was started with."
            )

    def write_progress(self, progress: Progress) -> None:
        """Say how far the run is."""
        write_atomically(self.path / PROGRESS, json.dumps(progress._asdict()) + "\n")

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()


def read_config(path: Path) -> dict[str, Any]:
    """What config.json of a run holds: `config`, `digest`, `data` (its fingerprint) and `versions`.

    Raises:
      ValueError: if there is no run.
    """
    try:
        return json.loads((path / CONFIG).read_text())
    except FileNotFoundError:
        raise ValueError(f"There is no run in {path}; give the --workdir of one.") from None


def config_of(path: Path) -> ConfigDict:
    """The configuration of the run in a directory; fields that are younger than the run are at their defaults.

    Raises:
      ValueError: if there is no run.
    """
    return configuration.from_dict(read_config(path)["config"])


def read_progress(path: Path) -> Progress | None:
    """How far the run in a directory is; None before its first phase is done."""
    file = path / PROGRESS
    return Progress(**json.loads(file.read_text())) if file.exists() else None
