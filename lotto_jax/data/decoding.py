"""Images decoded once, by threads (Pillow works outside the GIL), into an entry of the cache."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int, UInt8

from lotto_jax import progress
from lotto_jax.data import cache
from lotto_jax.data.ahead import ahead

VERSION = "v2"  # part of the cache's key; raise it when decoding or the cache's format changes
BLOCK = 64  # images decoded by a thread at a time, ...
BLOCK_BYTES = 1 << 23  # ... or fewer, whose pixels take so many bytes
MOST_THREADS = 16  # in parallel: reading the examples of TFDS holds the GIL

Block = tuple[UInt8[np.ndarray, "block height width channels"], Int[np.ndarray, "block *attributes"]]


def cached(key: str, image_size: int, decode: Callable[[cache.Writer], None]) -> dict[str, np.ndarray]:
    """The arrays of the dataset `key` at a size, mapped from the cache; `decode` writes them where they are not there.

    Args:
      key: of the dataset, with its version.
      image_size: height and width of the decoded images; 0: as stored.
      decode: called with the new entry.
    """
    stored = cache.root() / "datasets" / f"{key}-size{image_size or 'stored'}-{VERSION}"
    arrays = cache.read(stored)
    if arrays is None:
        with cache.writer(stored) as entry:
            decode(entry)
        arrays = cache.read(stored)
        assert arrays is not None
    return arrays


def sizes_differ(title: str) -> str:
    """The message where images of several sizes would have to keep them."""
    return (
        f"config.dataset.image_size is 0, but the images of {title} differ in size; "
        "set it to the height and width that they shall be resized to."
    )


def threads() -> int:
    """Number of threads that decode."""
    return min(os.cpu_count() or 1, MOST_THREADS)


def write(
    entry: cache.Writer,
    split: str,
    image_shape: tuple[int, int, int],
    label_shape: tuple[int, ...],
    n: int,
    decode: Callable[[range], Block],
    title: str,
) -> None:
    """Write images and labels of a split, in order and with a progress bar; only some blocks are in memory at a time.

    Args:
      entry: receives `{split}_image` and `{split}_label`.
      split: its name.
      image_shape: (height, width, channels).
      label_shape: of one example's label: (), or (attributes,).
      n: number of examples.
      decode: images and labels of a range of examples; called by threads.
      title: of the progress bar.
    """
    image = entry.array(f"{split}_image", (n, *image_shape), np.uint8)
    label = entry.array(f"{split}_label", (n, *label_shape), np.int32)
    block = max(1, min(BLOCK, BLOCK_BYTES // int(np.prod(image_shape))))
    blocks = (range(start, min(start + block, n)) for start in range(0, n, block))
    workers = threads()
    with (
        ThreadPoolExecutor(workers) as pool,
        progress.bar(total=n, desc=f"Decoding {title} (once)", unit="image") as bar,
    ):
        for images, labels in ahead(pool, decode, blocks, depth=2 * workers):
            image.append(images)
            label.append(labels)
            bar.update(len(images))
