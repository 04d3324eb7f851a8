"""Decoded splits on disk: `.npy` arrays and a manifest in a directory that appears whole or not at all."""

import json
import os
import shutil
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np

MANIFEST = "manifest.json"


def root() -> Path:
    """$LOTTO_JAX_CACHE, else lotto_jax in the user's cache directory."""
    if path := os.environ.get("LOTTO_JAX_CACHE"):
        return Path(path)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lotto_jax"


def write(directory: Path, arrays: dict[str, np.ndarray]) -> None:
    """Store `arrays` under `directory`, atomically; a copy that another process finished meanwhile is kept."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)
        manifest = {name: zlib.crc32(np.ascontiguousarray(a).data) for name, a in arrays.items()}
        (temporary / MANIFEST).write_text(json.dumps(manifest))
        if directory.exists():
            shutil.rmtree(directory)
        os.rename(temporary, directory)
    except FileExistsError:
        pass
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read(directory: Path) -> dict[str, np.ndarray] | None:
    """The arrays stored there, memory-mapped, or None (with a warning where they are damaged)."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in manifest}
        damaged = [name for name, crc in manifest.items() if zlib.crc32(arrays[name].data) != crc]
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        damaged = [str(error)]
    if damaged:
        warnings.warn(f"The cached data in {directory} are damaged ({damaged[0]}); decoding again.", stacklevel=2)
        return None
    return arrays
