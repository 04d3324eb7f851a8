"""metrics.jsonl: the points of the training curves, a JSON object a line."""

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lotto_jax.runs.files import write_atomically, writing

CURVES = "metrics.jsonl"


def append(path: Path, points: Iterable[Mapping[str, Any]]) -> None:
    """Append points; each has a `position`, which grows over a run."""
    with writing(path / CURVES), open(path / CURVES, "a") as file:
        file.writelines(json.dumps(point) + "\n" for point in points)


def cut(path: Path, first: int, last: int) -> None:
    """Drop the points after position `first` up to `last`, which will be made again, and lines that are damaged.

    The file is written anew only if there is something to drop.
    """
    file = path / CURVES
    if not file.exists():
        return
    points = read(path)
    kept = [point for point in points if not first < point["position"] <= last]
    whole = sum(1 for line in file.read_bytes().splitlines() if line)
    if len(kept) != whole:
        write_atomically(file, "".join(json.dumps(point) + "\n" for point in kept))


def read(path: Path) -> list[dict[str, Any]]:
    """The points of a run, without lines that a crash or the disk has damaged."""
    file = path / CURVES
    points: list[dict[str, Any]] = []
    if file.exists():
        for line in file.read_bytes().splitlines():
            with contextlib.suppress(ValueError):  # of the encoding too
                points.append(json.loads(line))
    return points
