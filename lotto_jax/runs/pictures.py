"""images.safetensors and channel_masks.safetensors: what the image grids and the figure of mask distances draw."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lotto_jax.runs.files import DamagedError, read_sealed, write_sealed

IMAGES = "images.safetensors"  # `original`, and `<kind>/<arm>/<sparsity>`: uint8 [n, height, width, channels]
CHANNEL_MASKS = "channel_masks.safetensors"  # `channels`, and by step bits [seeds, compressions, channels / 8]


def write_images(path: Path, pictures: Mapping[str, np.ndarray]) -> None:
    """Store pictures by name."""
    write_sealed(path / IMAGES, save(dict(pictures)))


def read_images(path: Path) -> dict[str, np.ndarray] | None:
    """The pictures of a run; None, with a warning if they are damaged, if there are none that can be read."""
    return _read(path / IMAGES, "the command of its run draws them again")


def add_channel_masks(path: Path, step: int, masks: Mapping[str, np.ndarray]) -> None:
    """Add the masks of a search at a step, by leaf name bool [seeds, compressions, channels]; drops masks of later
    steps, which will be made again.
    """
    bits = np.concatenate([np.asarray(masks[name]) for name in sorted(masks)], axis=-1)
    history = read_channel_masks(path) or {}
    history = {name: x for name, x in history.items() if name == "channels" or int(name) < step}
    history |= {str(step): np.packbits(bits, axis=-1), "channels": np.array(bits.shape[-1])}
    write_sealed(path / CHANNEL_MASKS, save(history))


def read_channel_masks(path: Path) -> dict[str, np.ndarray] | None:
    """The masks of a search as they are stored; None, with a warning if they are damaged, if none can be read."""
    return _read(path / CHANNEL_MASKS, "delete checkpoints/rounds/0 there, and the command of its run searches again")


def _read(file: Path, remedy: str) -> dict[str, np.ndarray] | None:
    try:
        return load(read_sealed(file))
    except FileNotFoundError:
        return None
    except (DamagedError, SafetensorError):
        warnings.warn(f"{file} is damaged, and the report does without what it held; {remedy}.", stacklevel=3)
        return None
