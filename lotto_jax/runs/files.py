"""Files that are, at any moment, either the old one or the new one, and of which a run notices any damage.

A sealed file `NAME` has a neighbour `.NAME.sha256` with the checksums of what is written and of what was there before,
which is still there after a crash between the two writes. A file without such a neighbour is read unchecked.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class DamagedError(ValueError):
    """A file is not what was written."""

    def __init__(self, path: Path, why: str = "its checksum does not match"):
        super().__init__(f"{path} is damaged: {why}. The command of its run mends it.")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file that is, at any moment, either the old one or the new one, also after a power cut.

    Raises:
      OSError: with one sentence that names the file, if it cannot be written.
    """
    data = _bytes(content)
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Failures to write `path` in here become one sentence."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"Could not write {path} ({error.strerror}); what was there before is intact. Make room there, or make it "
            "writable, and run the same command again."
        ) from error


def write_sealed(path: Path, content: str | bytes) -> None:
    """Write a file as `write_atomically`, with its checksum."""
    data, seal = _bytes(content), _seal(path)
    before = []
    if path.exists():
        found = _checksum(path.read_bytes())  # writes may have failed since the seal was written
        if not seal.exists() or found in seal.read_bytes().split():
            before = [found]
    write_atomically(seal, b"\n".join([_checksum(data), *before]) + b"\n")
    write_atomically(path, data)


def read_sealed(path: Path) -> bytes:
    """What a file holds.

    Raises:
      DamagedError: if it is not what was written.
      FileNotFoundError: if it is not there.
    """
    data, seal = path.read_bytes(), _seal(path)
    if seal.exists() and _checksum(data) not in seal.read_bytes().split():
        raise DamagedError(path)
    return data


def read_json(path: Path) -> Any:
    """What a sealed JSON file holds; raises as `read_sealed`."""
    try:
        return json.loads(read_sealed(path))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DamagedError(path, str(error)) from error


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _seal(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()
