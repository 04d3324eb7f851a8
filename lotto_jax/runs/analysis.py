"""analysis.csv: what `lotto-jax analyse` finds out about the tickets of a run; tidy, one value a row."""

import csv
import io
import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from lotto_jax.runs.files import DamagedError, read_sealed, write_sealed

ANALYSIS = "analysis.csv"


class Row(NamedTuple):
    """One value; where a quantity compares two tickets, what they differ in is written A/B.

    Attributes:
      quantity: what it is; docs/analysis.md lists them.
      pruned: `both`, or the component that is pruned.
      round: of the ticket; the later one where two rounds are compared.
      sparsity: of that ticket.
      arm: of the ticket; `snapshot` for the state at the rewind step.
      seed: of the ticket.
      layer: name of a leaf of params or of an activation; `all` for all of them together.
      value: of the quantity; NaN where it is not defined.
    """

    quantity: str
    pruned: str
    round: int
    sparsity: float
    arm: str
    seed: str
    layer: str
    value: float


def read(path: Path) -> list[Row]:
    """The rows of analysis.csv in a run directory (none if it has no such file yet).

    Raises:
      ValueError: if it is not what was written.
    """
    file = path / ANALYSIS
    if not file.exists():
        return []
    try:
        lines = io.StringIO(read_sealed(file).decode(), newline="")
    except DamagedError as error:
        raise ValueError(f"{file} is damaged; `lotto-jax analyse --workdir={path}` makes it again.") from error
    types = [Row.__annotations__[name] for name in Row._fields]
    return [Row(*(t(row[name]) for t, name in zip(types, Row._fields, strict=True))) for row in csv.DictReader(lines)]


def replace(path: Path, quantities: Collection[str], rows: Iterable[Row]) -> None:
    """Make `rows` all that analysis.csv has of some quantities, and leave the others alone, unless they are damaged."""
    try:
        kept = [row for row in read(path) if row.quantity not in quantities]
    except ValueError as error:
        warnings.warn(str(error), stacklevel=2)
        kept = []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    for row in [*kept, *rows]:
        writer.writerow([f"{x:.9g}" if isinstance(x, float) else x for x in row])
    write_sealed(path / ANALYSIS, text.getvalue())
