"""metrics.json: for every metric of results.csv, which values are better and what its numbers depend on."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lotto_jax.runs.files import read_json, write_sealed

METRICS = "metrics.json"
Entries = dict[str, dict[str, Any]]
MAY_DIFFER = {"classifier", "batch_split_over"}  # the directory may have moved, and so may the run


def read(path: Path) -> Entries:
    """By metric, its entry: `better`, perhaps `tolerance`, and what it was measured with.

    Raises:
      DamagedError: if metrics.json is.
    """
    file = path / METRICS
    return read_json(file) if file.exists() else {}


def write(path: Path, entries: Entries) -> None:
    """Make these all that metrics.json has."""
    write_sealed(path / METRICS, json.dumps(entries, indent=2) + "\n")


def claim(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Enter how metrics are measured from now on.

    Raises:
      ValueError: if the run has one of them from another extractor or sample count.
    """
    stored = read(path)
    for metric, entry in entries.items():
        for field in entry.keys() - MAY_DIFFER:
            there = stored.get(metric, {}).get(field, entry[field])
            if there != entry[field]:
                raise ValueError(
                    f"{metric} in {path} was measured with {field} {there}, not {entry[field]} ({METRICS}); "
                    "`lotto-jax evaluate --force` measures it again."
                )
    write(path, stored | {metric: dict(entry) for metric, entry in entries.items()})


def declare(path: Path, better: Mapping[str, str], split: int = 1) -> None:
    """Enter which values of the metrics of the objective and of the costs are better.

    Where training splits a batch over devices, enter over how many: sums are taken in another order then.
    """
    stored, extra = read(path), {"batch_split_over": split} if split > 1 else {}
    entries = stored | {metric: {**stored.get(metric, {}), "better": how, **extra} for metric, how in better.items()}
    if entries != stored:
        write(path, entries)


def drop(path: Path, metrics: Collection[str]) -> None:
    """Forget some metrics."""
    if (path / METRICS).exists():
        write(path, {metric: entry for metric, entry in read(path).items() if metric not in metrics})


def merged(paths: Collection[Path]) -> Entries:
    """What several runs say of their metrics, together.

    Raises:
      ValueError: if two of them measured a metric in different ways.
    """
    entries: Entries = {}
    for path in paths:
        for metric, entry in read(path).items():
            other = entries.setdefault(metric, entry)
            if any(entry[field] != other[field] for field in (entry.keys() & other.keys()) - MAY_DIFFER):
                raise ValueError(
                    f"{metric} was not measured alike in the parts of {path.parent}; "
                    f"`lotto-jax evaluate --workdir={path.parent} --metrics=... --force` measures it again in both."
                )
    return entries
