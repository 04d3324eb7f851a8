"""metrics.jsonl and held_out.jsonl: points of curves, a JSON object a line, which ends with its own checksum `crc`.

The first has the training metrics of every so many steps, the second what the objective measures of the held-out split
at some steps of training.
"""

import json
import warnings
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lotto_jax.runs.files import write_atomically, writing

CURVES = "metrics.jsonl"
HELD_OUT = "held_out.jsonl"


def append(path: Path, points: Iterable[Mapping[str, Any]], name: str = CURVES) -> None:
    """Append points to the file `name`; each has a `position`, which grows over a run."""
    with writing(path / name), open(path / name, "a") as file:
        file.writelines(map(_line, points))


def cut(path: Path, first: int, last: int, name: str = CURVES) -> None:
    """Drop the points after position `first` up to `last`, which will be made again, and lines that are damaged.

    The file is written anew only if there is something to drop.
    """
    file = path / name
    if not file.exists():
        return
    kept = [point for point in read(path, name) if not first < point["position"] <= last]
    if len(kept) != len(file.read_bytes().splitlines()):
        write_atomically(file, "".join(map(_line, kept)))


def read(path: Path, name: str = CURVES) -> list[dict[str, Any]]:
    """The points of a run, without lines that are damaged; warns of them, but for the last, which a crash may cut."""
    file = path / name
    points = [_point(line) for line in file.read_bytes().splitlines()] if file.exists() else []
    if None in points[:-1]:
        warnings.warn(
            f"{file} has {points[:-1].count(None)} damaged lines, which the training curves go without; no result "
            "depends on them.",
            stacklevel=2,
        )
    return [point for point in points if point is not None]


def _line(point: Mapping[str, Any]) -> str:
    return json.dumps({**point, "crc": _checksum(point)}) + "\n"


def _point(line: bytes) -> dict[str, Any] | None:
    """What a line says; None if it is damaged. Lines of earlier versions have no checksum."""
    try:
        point = json.loads(line)
        crc = point.pop("crc", None)
    except (ValueError, AttributeError):  # no text, no JSON, or no object
        return None
    return point if crc in (None, _checksum(point)) else None


def _checksum(point: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(point).encode())
