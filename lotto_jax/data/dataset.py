"""What every source of data gives: splits of uint8 images, or of float32 vectors, with integer labels."""

import hashlib
from collections.abc import Sized
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

SPLITS = ("train", "validation", "test")
FINGERPRINT_IMAGES = 64  # of each split


class Split(NamedTuple):
    """Examples of one split.

    Attributes:
      image: uint8 [n, height, width, channels]; or float32 [n, 1, 1, numbers] of points, which are no images.
      label: int32: classes [n], or 0 and 1 for each of several attributes [n, attributes].
    """

    image: UInt8[np.ndarray, "n height width channels"] | Float[np.ndarray, "n height width channels"]
    label: Int[np.ndarray, "n *attributes"]


class Dataset(NamedTuple):
    """A dataset in host memory (or mapped from the cache), with its splits explicit.

    Attributes:
      name: as the configuration has it.
      version: as TFDS has it; of a folder, a digest of its files; empty if a function gives none.
      train, validation, test: the splits; validation may be empty.
      label_names: of the classes, or of the attributes.
      streamed: whether the data exceed the device budget, so that training batches are gathered on the host.
    """

    name: str
    version: str
    train: Split
    validation: Split
    test: Split
    label_names: tuple[str, ...]
    streamed: bool

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        height, width, channels = self.train.image.shape[1:]
        return height, width, channels

    @property
    def pictures(self) -> bool:
        """Whether the examples are images, which can be drawn and which networks of images can look at."""
        return self.train.image.dtype == np.uint8

    @property
    def classes(self) -> int:
        """Number of classes, or of attributes."""
        return number_of_classes(self.train.label, self.label_names)

    @property
    def fingerprint(self) -> str:
        """Digest of all shapes and labels and of some images of each split, wherever they lie: it tells other data."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            images = split.image[:: max(1, len(split.image) // FINGERPRINT_IMAGES)]
            digest.update(f"{split.image.shape} {split.label.shape}".encode())
            digest.update(np.ascontiguousarray(split.label, np.int32).tobytes() + images.tobytes())
        return digest.hexdigest()[:16]


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros of any shape that take no memory, read-only."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def number_of_classes(label: Int[np.ndarray, "n *attributes"], label_names: Sized) -> int:
    """Of labels with these names, if they have any."""
    return len(label_names) or (label.shape[1] if label.ndim > 1 else int(label.max()) + 1)
