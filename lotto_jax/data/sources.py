"""Datasets as uint8 arrays: the bundled digits, or a TFDS image dataset prepared on disk, read without TensorFlow."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from lotto_jax.data import cache

DECODING = "v1"  # part of the cache's key; raise it when decoding changes


class Split(NamedTuple):
    """Examples of one split: images uint8 [n, height, width, channels], labels int32 [n]."""

    image: UInt8[np.ndarray, "n height width channels"]
    label: Int[np.ndarray, "n"]


class Dataset(NamedTuple):
    """A dataset in host memory (or mapped from the cache), with its splits explicit."""

    name: str
    version: str
    train: Split
    validation: Split
    test: Split

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        height, width, channels = self.train.image.shape[1:]
        return height, width, channels


def load(name: str, data_dir: str = "", train_examples: int = 0, validation_examples: int = 0) -> Dataset:
    """Load a dataset; the first time a TFDS dataset is decoded into the cache (see `cache.root`).

    Args:
      name: `digits`, or the name of a TFDS dataset with `image` and `label` features.
      data_dir: where TFDS datasets lie; empty for $TFDS_DATA_DIR, then ~/tensorflow_datasets.
      train_examples: use only the first so many training examples (0: all).
      validation_examples: examples held out from the end of the training split.

    Raises:
      ValueError: if the dataset is not there (says where it looked and what helps), or has too few examples.
    """
    version, arrays = _digits() if name == "digits" else _tfds(name, data_dir)
    train, test = (Split(arrays[f"{s}_image"], arrays[f"{s}_label"]) for s in ("train", "test"))
    end = len(train.label) - validation_examples
    count = train_examples or end
    if not 0 < count <= end:
        raise ValueError(
            f"config.dataset asks for {count} training and {validation_examples} validation examples, but the "
            f"training split of {name} has {len(train.label)}; lower train_examples or validation_examples."
        )
    return Dataset(name, version, Split(*(a[:count] for a in train)), Split(*(a[end:] for a in train)), test)


def _digits() -> tuple[str, dict[str, np.ndarray]]:
    """Scikit-learn's 1,797 real 8x8 digits; a fixed random fifth is the test split."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    image = np.round(digits.images * (255 / 16)).astype(np.uint8)[order, :, :, None]
    label = digits.target.astype(np.int32)[order]
    test = len(label) // 5
    return "1.0.0", {
        "train_image": image[test:],
        "train_label": label[test:],
        "test_image": image[:test],
        "test_label": label[:test],
    }


def _tfds(name: str, data_dir: str) -> tuple[str, dict[str, np.ndarray]]:
    directory = Path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    # The newest prepared version, found without importing TFDS: a cached dataset loads in well under a second.
    infos = sorted(
        (directory / name).glob("[0-9]*.[0-9]*.[0-9]*/dataset_info.json"),
        key=lambda path: tuple(int(part) for part in path.parent.name.split(".")),
    )
    if not infos:
        raise ValueError(
            f"No prepared dataset {name!r} in {directory}; point config.dataset.data_dir (or TFDS_DATA_DIR) at the "
            f"directory that holds it, or prepare it there with: tfds build {name} --data_dir={directory}"
        )
    version = infos[-1].parent.name
    stored = cache.root() / "datasets" / f"{name}-{version}-{DECODING}"
    arrays = cache.read(stored)
    if arrays is None:
        arrays = _decode(name, infos[-1].parent)
        cache.write(stored, arrays)
    return version, arrays


def _decode(name: str, directory: Path) -> dict[str, np.ndarray]:
    import tensorflow_datasets as tfds
    from tqdm import tqdm

    builder = tfds.builder_from_directory(directory)
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        source = builder.as_data_source(split=split)
        shape = np.asarray(source[0]["image"]).shape
        image, label = np.empty((len(source), *shape), np.uint8), np.empty(len(source), np.int32)
        for i in tqdm(range(len(source)), desc=f"Decoding {name} {split} (once)", unit="image"):
            example = source[i]
            image[i], label[i] = example["image"], example["label"]
        arrays |= {f"{split}_image": image, f"{split}_label": label}
    return arrays
