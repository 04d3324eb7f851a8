"""Datasets by name: the bundled digits and mixture, a folder of images, a TFDS dataset, or what a function returns.

A source is a module of this package with the three functions of `Source`, and a row of `SOURCES`.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lotto_jax import names
from lotto_jax.data import digits, folder, mixture, own, tfds
from lotto_jax.data.dataset import SPLITS, Dataset, Split


class Source(Protocol):
    """What each of these functions takes: `config.dataset.name`, `data_dir` and `image_size`; `outline` also
    `examples`, the number to take for every split where it is not known (0: there is none).

    They raise ValueError, with one sentence that names the field, where the dataset cannot be used.
    """

    def load(self, name: str, data_dir: str, image_size: int) -> tuple[str, dict[str, np.ndarray]]:
        """The version, and the arrays.

        `train_image`, `test_image` and, if there are any, `validation_image`: uint8 [n, height, width, channels], or
        float32 [n, 1, 1, numbers];
        a label for each, `train_label`, ...: int32 [n] or [n, attributes]; `label_names`, if there are any: [classes]
        or [attributes].
        """

    def outline(self, name: str, data_dir: str, image_size: int, examples: int) -> dict[str, np.ndarray]:
        """Arrays of the shapes and dtypes of those that `load` gives; images may be zeros that take no memory."""

    def image_shape(self, name: str, data_dir: str, image_size: int) -> tuple[int, int, int]:
        """(height, width, channels) of the images that `load` gives."""

    def classes(self, name: str, data_dir: str, image_size: int) -> int | None:
        """Number of classes or attributes of the labels that `load` gives; None if unknown."""


SOURCES: dict[str, Source] = {"digits": digits, "folder": folder, "mixture": mixture}


def _source(name: str) -> Source:
    return own if names.is_reference(name) else SOURCES.get(name, tfds)


def load(
    name: str,
    data_dir: str = "",
    train_examples: int = 0,
    validation_examples: int = 0,
    image_size: int = 0,
    device_budget_mb: float = 4096.0,
    classes: Sequence[int] = (),
) -> Dataset:
    """Load a dataset; images of TFDS datasets and of folders are decoded once, into the cache (see `cache.root`).

    Args:
      name: `digits`; `mixture`, points in the plane; `folder`, a directory of images (see `folder`);
        `package.module:function`, a function of the user's own (see `own`); or the name of a TFDS dataset with an
        `image` feature and a `label` or `attributes` feature.
      data_dir: the directory of images; or where TFDS datasets lie: empty for $TFDS_DATA_DIR, then
        ~/tensorflow_datasets.
      train_examples: use only the first so many training examples (0: all).
      validation_examples: examples held out from the end of the training split, in place of the validation split that
        the dataset may have of its own (0: that one).
      image_size: height and width to which images are resized (see `pixels.fit`); 0 for images as they are stored.
      device_budget_mb: megabytes (2**20 bytes) that the data may take on every device: images and labels of the
        training split, and of the larger of the two others, which always lies there whole. Where it is more, the
        training split is streamed.
      classes: use only examples of these classes, in all splits; they keep their numbers. Empty: of all classes.

    Raises:
      ValueError: if the dataset is not there (says where it looked and what helps), is of a kind that cannot be read,
        or has too few examples.
    """
    version, arrays = _source(name).load(name, data_dir, image_size)
    if classes:
        arrays = _only(arrays, classes, name)
    return _dataset(name, version, arrays, train_examples, validation_examples, device_budget_mb)


def outline(
    name: str,
    data_dir: str = "",
    train_examples: int = 0,
    validation_examples: int = 0,
    image_size: int = 0,
    device_budget_mb: float = 4096.0,
    classes: Sequence[int] = (),
) -> Dataset:
    """A dataset of the shapes and dtypes of the one that `load` gives, for compiling; its images may be zeros.

    Of a TFDS dataset that is not prepared `train_examples` has to be given, and every other split counts as large as
    that; of a folder only headers are read. Examples of some `classes` can only be counted in what is loaded. `load`
    explains the arguments.

    Raises:
      ValueError: if that cannot be known.
    """
    if classes:
        return load(name, data_dir, train_examples, validation_examples, image_size, device_budget_mb, classes)
    arrays = _source(name).outline(name, data_dir, image_size, train_examples + validation_examples)
    return _dataset(name, "", arrays, train_examples, validation_examples, device_budget_mb)


def _only(arrays: dict[str, np.ndarray], wanted: Sequence[int], name: str) -> dict[str, np.ndarray]:
    """The arrays of a source with the examples of some classes."""
    there = arrays["train_label"]
    if there.ndim > 1:
        raise ValueError(f"config.dataset.classes is {tuple(wanted)}, but {name} has attributes; leave it empty.")
    if missing := sorted(set(wanted) - set(np.unique(there).tolist())):
        raise ValueError(
            f"config.dataset.classes has {missing[0]}, but no training example of {name} is of that class."
        )
    chosen = dict(arrays)
    for split in SPLITS:
        if f"{split}_label" in arrays:
            where = np.flatnonzero(np.isin(arrays[f"{split}_label"], wanted))
            chosen |= {key: arrays[key][where] for key in (f"{split}_image", f"{split}_label")}
    return chosen


def _dataset(
    name: str,
    version: str,
    arrays: dict[str, np.ndarray],
    train_examples: int,
    validation_examples: int,
    device_budget_mb: float,
) -> Dataset:
    splits = {s: Split(arrays[f"{s}_image"], arrays[f"{s}_label"]) for s in SPLITS if f"{s}_image" in arrays}
    train = splits["train"]
    end = len(train.label) - validation_examples
    count = train_examples or end
    if not 0 < count <= end:
        raise ValueError(
            f"config.dataset asks for {count} training and {validation_examples} validation examples, but the "
            f"training split of {name} has {len(train.label)}; lower train_examples or validation_examples."
        )
    validation = Split(*(a[end:] for a in train))
    if not validation_examples:
        validation = splits.get("validation", validation)
    train = Split(*(a[:count] for a in train))
    label_names = tuple(str(label) for label in arrays.get("label_names", ()))
    held = lambda split: sum(array.nbytes for array in split)  # noqa: E731
    streamed = held(train) + max(held(validation), held(splits["test"])) > device_budget_mb * 2**20
    return Dataset(name, version, train, validation, splits["test"], label_names, streamed)


def image_shape(name: str, data_dir: str = "", image_size: int = 0) -> tuple[int, int, int]:
    """(height, width, channels) of the images that `load` would give.

    No TFDS dataset is needed for that, and of a folder only the headers of some images are read; a function is called.

    Raises:
      ValueError: if there is no such dataset, or its images cannot be read.
    """
    return _source(name).image_shape(name, data_dir, image_size)


def classes(name: str, data_dir: str = "", image_size: int = 0) -> int | None:
    """Number of classes or attributes that `load` would find; None if TFDS has no number.

    No TFDS dataset is needed for that, and a folder is only listed; a function is called.

    Raises:
      ValueError: if there is no such dataset, or it has no labels.
    """
    return _source(name).classes(name, data_dir, image_size)
