"""results.csv: tidy, one measurement a row, the input of every table and figure."""

import csv
import io
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from lotto_jax.runs.files import read_sealed, write_sealed

RESULTS = "results.csv"


class Result(NamedTuple):
    """One measurement: a row of results.csv.

    Attributes:
      round: level of the ticket (`tickets.Ticket.level`).
      sparsity: share that is removed (`tickets.Ticket.removed`).
    """

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


def read(path: Path) -> list[Result]:
    """The rows of results.csv in a run directory (none if it has no such file yet).

    Raises:
      DamagedError: if it is not what was written.
    """
    types = [Result.__annotations__[name] for name in Result._fields]
    return [Result(*(t(x) for t, x in zip(types, row, strict=True))) for row in _rows(path)]


def add(path: Path, results: Iterable[Result]) -> None:
    """Append rows; a measurement that is there already is replaced, so repeating is harmless."""
    # Rows are the same measurement if they are written the same: a sparsity loses its last digits on disk.
    rows = {tuple(row[:-1]): row for row in [*_rows(path), *map(_written, results)]}
    _write(path, rows.values())


def replace(path: Path, results: Iterable[Result]) -> None:
    """Make these all that results.csv has."""
    _write(path, map(_written, results))


def drop(path: Path, metrics: Collection[str]) -> None:
    """Remove all measurements of some metrics."""
    column = Result._fields.index("metric")
    _write(path, (row for row in _rows(path) if row[column] not in metrics))


def missing(path: Path, results: Iterable[Result]) -> list[Result]:
    """Those measurements, whatever their values, that results.csv does not have."""
    there = {tuple(row[:-1]) for row in _rows(path)}
    return [r for r in results if tuple(_written(r)[:-1]) not in there]


def _written(result: Result) -> list[str]:
    return [f"{x:.9g}" if isinstance(x, float) else str(x) for x in result]


def _rows(path: Path) -> list[list[str]]:
    """The rows as they are written."""
    if not (path / RESULTS).exists():
        return []
    lines = io.StringIO(read_sealed(path / RESULTS).decode(), newline="")
    return [[row[name] for name in Result._fields] for row in csv.DictReader(lines)]


def _write(path: Path, rows: Iterable[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Result._fields, *rows])
    write_sealed(path / RESULTS, text.getvalue())
