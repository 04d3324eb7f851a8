"""Where images come from: arrays, folders and streams of batches, checked and brought to one layout."""

import functools
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

SUFFIXES = {".bmp", ".jpg", ".jpeg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}

# One array [images, height, width(, channels)], a folder of image files, or batches of such arrays.
Source = np.ndarray | jax.Array | str | Path | Iterable[np.ndarray | jax.Array]


def to_uint8(images: Float[Array, "..."]) -> UInt8[Array, "..."]:
    """Images in [0, 1] as uint8, rounded and clipped: what a PNG would hold, on the device.

    Published distances compare 8-bit images; call this on the output of a generator before its features are taken.
    """
    return jnp.round(jnp.clip(images, 0.0, 1.0) * 255.0).astype(jnp.uint8)


@functools.cache
def _say_replicated() -> None:
    logging.getLogger(__name__).warning("Grayscale images are replicated to three channels.")


def checked(images: np.ndarray | jax.Array, channels: int = 3) -> np.ndarray | jax.Array:
    """The batch as `[images, height, width, channels]`, grayscale replicated (and said) where needed.

    Args:
      images: uint8, or float in [-1, 1].
      channels: what the network reads.

    Raises:
      ValueError: for another shape, dtype or range.
    """
    if images.ndim == 3 and images.shape[2] in (1, 3):
        raise ValueError(
            f"Images have shape {tuple(images.shape)}, which is the shape of a single image; "
            "stack images to [images, height, width, channels]."
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, channels):
        raise ValueError(
            f"Images have shape {tuple(images.shape)}; expected [images, height, width, {channels}] "
            "(channels last), "
            "or grayscale with 1 channel or none."
        )
    if images.dtype != np.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"Images have dtype {images.dtype}; expected uint8, or float in [-1, 1].")
    if images.shape[3] != channels:
        _say_replicated()
        repeat = np.repeat if isinstance(images, np.ndarray) else jnp.repeat
        images = repeat(images, channels, axis=3)
    return images


def check_range(images: np.ndarray | jax.Array) -> None:
    """Raise ValueError where float images leave [-1, 1] (0 to 255 as float is the usual slip)."""
    if images.dtype == np.uint8:
        return
    low, high = float(images.min()), float(images.max())
    if not (low >= -1.0 - 1e-3 and high <= 1.0 + 1e-3):
        raise ValueError(
            f"Float images must lie in [-1, 1], found {low:.4g} to {high:.4g}; pass uint8 images, or scale them."
        )


def image_files(folder: str | Path) -> list[Path]:
    """The image files directly in a folder, sorted.

    Raises:
      ValueError: if there is no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}; name a folder of images or an npz file of statistics.")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(
            f"The folder {folder} holds no images (it needs {', '.join(sorted(SUFFIXES))} files, not in subfolders)."
        )
    return files


def read_image(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """One file as RGB.

    Raises:
      ValueError: if it cannot be decoded; the sentence names the file.
    """
    try:
        with Image.open(path) as image:
            if image.mode in ("1", "L", "LA", "I", "I;16", "F"):
                _say_replicated()
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:  # by format
        raise ValueError(f"The image {path} cannot be read ({error}); replace or remove it.") from None


def _read_folder(folder: str | Path, batch_size: int) -> Iterator[np.ndarray]:
    files = image_files(folder)
    shape = read_image(files[0]).shape
    with ThreadPoolExecutor(8) as pool:  # decoders release the interpreter lock
        for start in range(0, len(files), batch_size):
            paths = files[start : start + batch_size]
            images = list(pool.map(read_image, paths))
            for path, image in zip(paths, images, strict=True):
                if image.shape != shape:
                    raise ValueError(
                        f"The image {path} is {image.shape[1]}x{image.shape[0]}, but {files[0].name} is "
                        f"{shape[1]}x{shape[0]}; all images of a folder must have one size."
                    )
            yield np.stack(images)


def batches(source: Source, batch_size: int, channels: int = 3) -> Iterator[np.ndarray | jax.Array]:
    """Checked batches of `[at most batch_size, height, width, channels]`; batches of a stream come as they are.

    Args:
      source: array, folder or iterable of arrays; uint8, or float in [-1, 1]. Arrays on a device stay there.
      batch_size: images a batch.
      channels: what the network reads.
    """
    if isinstance(source, str | Path):
        parts: Iterable = _read_folder(source, batch_size)
    elif isinstance(source, np.ndarray | jax.Array):
        whole = source
        parts = (whole[start : start + batch_size] for start in range(0, len(whole), batch_size))
    else:
        parts = source
    for index, batch in enumerate(parts):
        images = checked(batch, channels)
        if index == 0 or isinstance(images, np.ndarray):  # on the device, each look would cost a wait
            check_range(images)
        yield images
