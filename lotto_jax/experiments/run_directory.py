"""A run's directory: its configuration, lock, training curves, results and tickets; files are replaced whole."""

import csv
import fcntl
import io
import json
import os
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from safetensors.numpy import save

from lotto_jax import config as configuration
from lotto_jax.pruning import masks

VERSIONED = ("lotto_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
# Where a run's inputs lie and what is measured of its tickets may change between starts; how it trains them may not.
MAY_CHANGE = configuration.NOT_COMPUTED


PARTS = ("imp", "early_bird")  # directories, each of a run, below one of the experiment `table2`


class RunDirectoryError(Exception):
    """The directory cannot be used for this run."""


class Result(NamedTuple):
    """One measurement: a row of results.csv."""

    experiment: str
    model: str
    dataset: str
    pruned: str
    round: int
    sparsity: float
    arm: str
    seed: int
    step: int
    metric: str
    value: float


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file that is, at any moment, either the old one or the new one, also after a power cut."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class RunDirectory:
    """Owner of one run's files. Opening it takes its lock, for as long as the process lives."""

    def __init__(self, path: Path, config: ConfigDict):
        """Create or reopen `path` for `config`.

        Raises:
          RunDirectoryError: if another run has it open, or it holds a run of another configuration.
        """
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = open(path / ".lock", "w")  # noqa: SIM115  (held until the process ends)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RunDirectoryError(f"Another run is using {path}; wait for it or choose another --workdir.") from None
        try:
            self._claim(config)
        except RunDirectoryError:
            self._lock.close()
            raise

    def _claim(self, config: ConfigDict) -> None:
        """Make the directory this configuration's, or check that it is."""
        stored = self.path / "config.json"
        values = configuration.as_dict(config)
        if stored.exists():
            self._compare(json.loads(stored.read_text())["config"], values)
        elif any(p.name != ".lock" and p.suffix != ".tmp" for p in self.path.iterdir()):
            raise RunDirectoryError(f"{self.path} holds other files but no run; choose an empty --workdir.")
        else:
            versions = {name: version(name) for name in VERSIONED}
            content = {"config": values, "digest": configuration.digest(config), "versions": versions}
            write_atomically(stored, json.dumps(content, indent=2) + "\n")

    def _compare(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        # A field that is younger than the run was at its default there. Those of the open sections have no default.
        defaults = configuration.flatten(configuration.as_dict(configuration.default()))
        before = {k: v for k, v in defaults.items() if k.split(".")[0] not in configuration.OPEN_SECTIONS}
        before |= configuration.flatten(old)
        now = configuration.flatten(new)
        keys = sorted((before.keys() | now.keys()) - set(MAY_CHANGE))
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

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()

    def add_results(self, results: Iterable[Result]) -> None:
        """Append rows to results.csv; a measurement that is there already is replaced, so repeating is harmless."""
        # Rows are the same measurement if they are written the same: a sparsity loses its last digits on disk.
        rows = {tuple(row[:-1]): row for row in [*_rows(self.path), *map(_written, results)]}
        self._write_results(rows.values())

    def replace_results(self, results: Iterable[Result]) -> None:
        """Make these all that results.csv has."""
        self._write_results(map(_written, results))

    def drop_results(self, metrics: Collection[str]) -> None:
        """Remove all measurements of some metrics from results.csv."""
        column = Result._fields.index("metric")
        self._write_results(row for row in _rows(self.path) if row[column] not in metrics)

    def missing(self, results: Iterable[Result]) -> list[Result]:
        """Those measurements, whatever their values, that results.csv does not have."""
        there = {tuple(row[:-1]) for row in _rows(self.path)}
        return [r for r in results if tuple(_written(r)[:-1]) not in there]

    def _write_results(self, rows: Iterable[list[str]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([Result._fields, *rows])
        write_atomically(self.path / "results.csv", text.getvalue())

    def log(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append training-curve points to metrics.jsonl."""
        with open(self.path / "metrics.jsonl", "a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def truncate_log(self, first: int, last: int) -> None:
        """Drop the points after position `first` up to `last`, which will be made again, and a half-written line."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            kept = [line for line in read_log(self.path) if not first < line["position"] <= last]
            write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))

    def save_ticket(self, name: str, mask: masks.Mask, provenance: Mapping[str, Any]) -> None:
        """Store a ticket's bit-packed mask and where it comes from in tickets/<name>/."""
        directory = self.path / "tickets" / name
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(directory / "mask.safetensors", save(masks.pack(mask)))
        write_atomically(directory / "provenance.json", json.dumps(provenance, indent=2) + "\n")


def _written(result: Result) -> list[str]:
    return [f"{x:.9g}" if isinstance(x, float) else str(x) for x in result]


def _rows(path: Path) -> list[list[str]]:
    """The rows of results.csv as they are written."""
    file = path / "results.csv"
    if not file.exists():
        return []
    with open(file, newline="") as lines:
        return [[row[name] for name in Result._fields] for row in csv.DictReader(lines)]


def read_results(path: Path) -> list[Result]:
    """The rows of results.csv in a run directory (none if it has no such file yet)."""
    types = [Result.__annotations__[name] for name in Result._fields]
    return [Result(*(t(x) for t, x in zip(types, row, strict=True))) for row in _rows(path)]


def read_log(path: Path) -> list[dict[str, Any]]:
    """The points of metrics.jsonl; a line cut off by a crash ends the list."""
    file = path / "metrics.jsonl"
    points: list[dict[str, Any]] = []
    if file.exists():
        for line in file.read_text().splitlines():
            try:
                points.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return points
