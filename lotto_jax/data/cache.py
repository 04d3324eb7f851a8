"""Decoded splits on disk: `.npy` arrays and a manifest in a directory that appears whole or not at all.

Arrays are written and verified in blocks, so neither needs memory for more than a block of one.
"""

import contextlib
import io
import json
import math
import os
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike

MANIFEST = "manifest.json"
BLOCK_BYTES = 1 << 20


def root() -> Path:
    """$LOTTO_JAX_CACHE, else lotto_jax in $XDG_CACHE_HOME, else in ~/.cache.

    As the XDG Base Directory Specification has it, $XDG_CACHE_HOME counts only if it is an absolute path.
    """
    if path := os.environ.get("LOTTO_JAX_CACHE"):
        return Path(path)
    user = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(user) if os.path.isabs(user) else Path.home() / ".cache") / "lotto_jax"


class ArrayFile:
    """An array on its way into a `.npy` file, appended to along the leading axis.

    Plain writes rather than a memory map: on a full disk they raise an OSError, where a map would end the process.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype):
        """Write the header."""
        self.shape, self.dtype, self.crc, self.missing = shape, dtype, 0, math.prod(shape)
        self._file = file
        header = io.BytesIO()
        description = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_2_0(header, description)
        self._write(header.getvalue())

    def append(self, block: np.ndarray) -> None:
        """Add entries of the leading axis, cast to the array's dtype.

        Raises:
          ValueError: if the trailing axes differ from the array's.
        """
        if block.shape[1:] != self.shape[1:]:
            raise ValueError(f"An array of shape {self.shape} takes no block of shape {block.shape}.")
        self.missing -= block.size
        self._write(np.ascontiguousarray(block, self.dtype).tobytes())

    def _write(self, data: bytes) -> None:
        self.crc = zlib.crc32(data, self.crc)
        self._file.write(data)


class Writer:
    """The arrays of an entry that is being written to a directory."""

    def __init__(self, directory: Path, files: contextlib.ExitStack):
        self._directory, self._files, self._arrays = directory, files, dict[str, ArrayFile]()

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> ArrayFile:
        """A new array, to be appended to until it is full."""
        file = self._files.enter_context((self._directory / f"{name}.npy").open("wb"))
        self._arrays[name] = ArrayFile(file, shape, np.dtype(dtype))
        return self._arrays[name]

    def write_manifest(self) -> None:
        """Store the checksums of the arrays' files.

        Raises:
          ValueError: if an array is not full.
        """
        for name, array in self._arrays.items():
            if array.missing:
                raise ValueError(f"The array {name} of shape {array.shape} lacks {array.missing} of its numbers.")
        manifest = {name: array.crc for name, array in self._arrays.items()}
        (self._directory / MANIFEST).write_text(json.dumps(manifest))


@contextlib.contextmanager
def writer(directory: Path) -> Iterator[Writer]:
    """Write an entry: it is in `directory` after the `with` block, or not at all where the block raises.

    A copy that another process finished meanwhile is kept.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        with contextlib.ExitStack() as files:
            entry = Writer(temporary, files)
            yield entry
            entry.write_manifest()
        try:
            os.rename(temporary, directory)
        except OSError:
            if not (directory / MANIFEST).exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read(directory: Path) -> dict[str, np.ndarray] | None:
    """The arrays stored there, memory-mapped; None if there are none. Damaged ones are removed, with a warning."""
    if not directory.exists():
        return None
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        damaged = [name for name, crc in manifest.items() if _checksum(directory / f"{name}.npy") != crc]
        if not damaged:
            return {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in manifest}
    except (ValueError, OSError) as error:
        damaged = [str(error)]
    warnings.warn(f"The cached data in {directory} are damaged ({damaged[0]}); decoding again.", stacklevel=2)
    shutil.rmtree(directory, ignore_errors=True)
    return None


def _checksum(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            crc = zlib.crc32(block, crc)
    return crc
