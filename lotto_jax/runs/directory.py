"""A run's directory: its lock, its configuration, and how far it is."""

import contextlib
import fcntl
import json
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, NamedTuple

from ml_collections import ConfigDict

from lotto_jax import config as configuration
from lotto_jax import names
from lotto_jax.runs import origin
from lotto_jax.runs.files import DamagedError, read_json, write_sealed, writing
from lotto_jax.training import hosts

CONFIG, COPY, LOCK, PROGRESS = "config.json", ".config.json.copy", ".lock", "progress.json"
FORMAT = 2  # of run directories; a run that another format began cannot be gone on with
VERSIONED = ("lotto_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class RunDirectoryError(ValueError):
    """The directory cannot be used for this run."""


def check(path: Path) -> None:
    """Raise RunDirectoryError if it is an object store."""
    if scheme := re.match(r"(\w+):/", str(path)):
        raise RunDirectoryError(
            f"--workdir is {path}, an object store ({scheme[1]}), where files can be neither locked nor appended to; "
            "choose a directory, which all hosts mount, and copy it there afterwards."
        )


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
          OSError: if it cannot be written to.
          RunDirectoryError: if another run has it open, or it holds a run of another configuration or of other data;
            if it is an object store, or the processes do not see the same directory.
        """
        check(path)
        self.path = path
        self._lock: IO[str] | None = None
        hosts.first(self._take, config, data)
        if not (path / CONFIG).exists():
            raise RunDirectoryError(f"--workdir is {path}, which is another directory on the first host; share it.")

    def _take(self, config: ConfigDict, data: str) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise RunDirectoryError(f"--workdir is {self.path}, which is a file; choose a directory.")
        unlocked = not (self.path / LOCK).exists()
        with writing(self.path):
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
        except (OSError, RunDirectoryError):
            self._lock.close()
            if unlocked:  # before, so the directory is none of ours
                (self.path / LOCK).unlink()
            raise

    def _claim(self, config: ConfigDict, data: str) -> None:
        """Make the directory this configuration's, or check that it is."""
        values = configuration.as_dict(config)
        before = self._stored()
        if before is not None:
            _check_format(before, self.path)
            self._compare(before["config"], values)
            if data and before.get("data", data) != data:
                raise RunDirectoryError(
                    f"{self.path} holds a run on other images or labels than config.dataset.data_dir has now; choose "
                    "another --workdir, or the data it was started with."
                )
        elif any(not p.name.startswith(".") for p in self.path.iterdir()):
            raise RunDirectoryError(
                f"{self.path} holds other files but no {CONFIG} of a run that can be read; choose an empty --workdir."
            )
        else:
            versions = {name: version(name) for name in VERSIONED}
            before = {"format": FORMAT, "config": values, "digest": configuration.digest(config), "data": data}
            before |= {"modules": names.places(configuration.flatten(values).values()), "versions": versions}
            before |= {"begun": origin.here()}
        self._store(before)

    def _stored(self) -> dict[str, Any] | None:
        """What config.json says, or its copy if that is lost; None if both are."""
        for name in (CONFIG, COPY):
            with contextlib.suppress(DamagedError, FileNotFoundError):
                return read_json(self.path / name)
        return None

    def _store(self, content: dict[str, Any]) -> None:
        """Write config.json and its copy, if they do not say this already."""
        for name in (COPY, CONFIG):
            try:
                same = read_json(self.path / name) == content
            except (DamagedError, FileNotFoundError):
                same = False
            if not same:
                write_sealed(self.path / name, json.dumps(content, indent=2) + "\n")

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
        write_sealed(self.path / PROGRESS, json.dumps(progress._asdict()) + "\n")

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()


def read_config(path: Path) -> dict[str, Any]:
    """What config.json of a run holds.

    `format`, `config`, `digest`, `data` (its fingerprint), `modules` (where the user's own code was found), `versions`
    and `begun` (`origin.here` at its first start). That code can be imported afterwards.

    Raises:
      ValueError: if there is no run, or config.json is damaged.
    """
    try:
        content = read_json(path / CONFIG)
    except FileNotFoundError:
        raise ValueError(f"There is no run in {path}; give the --workdir of one.") from None
    sys.path += [place for place in content.get("modules", []) if place not in sys.path]
    return content


def _check_format(content: dict[str, Any], path: Path) -> None:
    if content.get("format", 1) != FORMAT:
        raise RunDirectoryError(
            f"{path} holds a run of another version of lotto_jax (format {content.get('format', 1)}, here it is "
            f"{FORMAT}); finish it with that version, or choose another --workdir."
        )


def config_of(path: Path) -> ConfigDict:
    """The configuration of the run in a directory; fields that are younger than the run are at their defaults.

    Raises:
      RunDirectoryError: if another version of lotto_jax began it, whose states cannot be read.
      ValueError: if there is no run.
    """
    content = read_config(path)
    _check_format(content, path)
    return configuration.from_dict(content["config"])


def read_progress(path: Path) -> Progress | None:
    """How far the run in a directory is; None before its first phase is done.

    Raises:
      DamagedError: if progress.json is.
    """
    file = path / PROGRESS
    return Progress(**read_json(file)) if file.exists() else None
