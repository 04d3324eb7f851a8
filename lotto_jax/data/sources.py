"""Datasets as uint8 arrays: the bundled digits, or a TFDS image dataset prepared on disk, read without TensorFlow."""

import functools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from lotto_jax.data import cache, pixels
from lotto_jax.data.ahead import ahead

DECODING = "v2"  # part of the cache's key; raise it when decoding or the cache's format changes
SPLITS = ("train", "validation", "test")
BLOCK = 64  # images decoded by a thread at a time
MOST_THREADS = 16  # in parallel: reading the examples holds the GIL


class Split(NamedTuple):
    """Examples of one split.

    Attributes:
      image: uint8 [n, height, width, channels].
      label: int32: classes [n], or 0 and 1 for each of several attributes [n, attributes].
    """

    image: UInt8[np.ndarray, "n height width channels"]
    label: Int[np.ndarray, "n *attributes"]


class Dataset(NamedTuple):
    """A dataset in host memory (or mapped from the cache), with its splits explicit.

    Attributes:
      name, version: as TFDS has them.
      train, validation, test: the splits; validation may be empty.
      label_names: of the classes, or of the attributes.
      streamed: whether the training split exceeds the device budget, so that its batches are gathered on the host.
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
    def classes(self) -> int:
        """Number of classes, or of attributes."""
        label = self.train.label
        return len(self.label_names) or (label.shape[1] if label.ndim > 1 else int(label.max()) + 1)


def load(
    name: str,
    data_dir: str = "",
    train_examples: int = 0,
    validation_examples: int = 0,
    image_size: int = 0,
    device_budget_mb: float = 4096.0,
) -> Dataset:
    """Load a dataset; the first time a TFDS dataset is decoded into the cache (see `cache.root`).

    Args:
      name: `digits`, or the name of a TFDS dataset with an `image` feature and a `label` or `attributes` feature.
      data_dir: where TFDS datasets lie; empty for $TFDS_DATA_DIR, then ~/tensorflow_datasets.
      train_examples: use only the first so many training examples (0: all).
      validation_examples: examples held out from the end of the training split, in place of the validation split that
        the dataset may have of its own (0: that one).
      image_size: height and width to which images are resized (see `pixels.fit`); 0 for images as they are stored.
      device_budget_mb: a training split whose images take more megabytes (2**20 bytes) is streamed.

    Raises:
      ValueError: if the dataset is not there (says where it looked and what helps), is of a kind that cannot be read,
        or has too few examples.
    """
    version, arrays = _digits(image_size) if name == "digits" else _tfds(name, data_dir, image_size)
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
    streamed = train.image.nbytes > device_budget_mb * 2**20
    return Dataset(name, version, train, validation, splits["test"], label_names, streamed)


def image_shape(name: str, data_dir: str = "", image_size: int = 0) -> tuple[int, int, int]:
    """(height, width, channels) of the images that `load` would give, without needing the dataset itself.

    Raises:
      ValueError: if TFDS does not know the dataset, or its images cannot be read.
    """
    if name == "digits":
        return (image_size or 8, image_size or 8, 1)
    return _image_shape(name, _features(name, data_dir), image_size)


def classes(name: str, data_dir: str = "") -> int | None:
    """Number of classes or attributes that `load` would find, without needing the dataset; None if TFDS has no number.

    Raises:
      ValueError: if TFDS does not know the dataset, or it has no labels.
    """
    if name == "digits":
        return 10
    features = _features(name, data_dir)
    keys, names = _labels(name, features)
    if keys == ("label",):
        return len(names) or getattr(features["label"], "num_classes", None)
    return len(keys)


def _features(name: str, data_dir: str) -> Any:
    """What TFDS knows about the examples of a dataset."""
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=_directory(data_dir), try_gcs=False).info.features
    except tfds.core.DatasetNotFoundError:
        raise ValueError(f"config.dataset.name is {name!r}, which TFDS does not know.") from None


def _directory(data_dir: str) -> Path:
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def _digits(image_size: int) -> tuple[str, dict[str, np.ndarray]]:
    """Scikit-learn's 1,797 real 8x8 digits; a fixed random fifth is the test split."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    image = np.round(digits.images * (255 / 16)).astype(np.uint8)[order, :, :, None]
    if image_size:
        image = np.stack([pixels.fit(i, image_size) for i in image])
    label = digits.target.astype(np.int32)[order]
    test = len(label) // 5
    return "1.0.0", {
        "train_image": image[test:],
        "train_label": label[test:],
        "test_image": image[:test],
        "test_label": label[:test],
        "label_names": digits.target_names,
    }


def _tfds(name: str, data_dir: str, image_size: int) -> tuple[str, dict[str, np.ndarray]]:
    directory = _directory(data_dir)
    # The newest prepared version, found without importing TFDS: a cached dataset loads in well under a second.
    infos = sorted(
        (directory / name).glob("[0-9]*.[0-9]*.[0-9]*/dataset_info.json"),
        key=lambda path: tuple(int(part) for part in path.parent.name.split(".")),
    )
    prepare = f"tfds build {name} --file_format=array_record --data_dir={directory}"
    if not infos:
        raise ValueError(
            f"No prepared dataset {name!r} in {directory}; point config.dataset.data_dir (or TFDS_DATA_DIR) at the "
            f"directory that holds it, or prepare it there with: {prepare}"
        )
    version = infos[-1].parent.name
    stored = cache.root() / "datasets" / f"{name}-{version}-size{image_size or 'stored'}-{DECODING}"
    arrays = cache.read(stored)
    if arrays is None:
        file_format = json.loads(infos[-1].read_text()).get("fileFormat", "tfrecord")
        if file_format != "array_record":
            raise ValueError(
                f"The dataset in {infos[-1].parent} has the format {file_format}, which only TensorFlow reads; prepare "
                f"it elsewhere with: {prepare}"
            )
        with cache.writer(stored) as entry:
            _decode(name, infos[-1].parent, image_size, entry)
        arrays = cache.read(stored)
        assert arrays is not None
    return version, arrays


def _decode(name: str, directory: Path, image_size: int, entry: cache.Writer) -> None:
    """Write every split to the cache: images decoded and fitted by threads (Pillow works outside the GIL), in order."""
    import tensorflow_datasets as tfds
    from tqdm import tqdm

    builder = tfds.builder_from_directory(directory)
    splits = [split for split in SPLITS if split in builder.info.splits]
    if not {"train", "test"} <= set(splits):
        raise ValueError(
            f"config.dataset.name is {name!r}, whose splits are {', '.join(builder.info.splits)}; "
            "it takes a dataset with the splits train and test."
        )
    height, width, channels = _image_shape(name, builder.info.features, image_size)
    keys, names = _labels(name, builder.info.features)
    if names:
        entry.array("label_names", (len(names),), np.array(names).dtype).append(np.array(names))
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        for split in splits:
            raw = tfds.decode.DeserializeMethod.RAW_BYTES
            source = builder.as_data_source(split=split, deserialize_method=raw)
            n = len(source)
            image = entry.array(f"{split}_image", (n, height, width, channels), np.uint8)
            label = entry.array(f"{split}_label", (n,) if keys == ("label",) else (n, len(keys)), np.int32)
            decode = functools.partial(_decode_block, source, keys, channels, image_size)
            with tqdm(total=n, desc=f"Decoding {name} {split} (once)", unit="image") as progress:
                for images, labels in ahead(pool, decode, range(0, n, BLOCK), depth=2 * threads):
                    image.append(images)
                    label.append(labels.reshape(-1, *label.shape[1:]))
                    progress.update(len(images))


def _image_shape(name: str, features: Any, image_size: int) -> tuple[int, int, int]:
    """(height, width, channels) of the images as they will be in the cache."""
    image = features["image"] if "image" in features else None  # noqa: SIM401  (FeaturesDict has no get)
    if image is None or image.np_dtype != np.uint8 or len(image.shape) != 3 or image.shape[-1] not in pixels.MODES:
        raise ValueError(
            f"config.dataset.name is {name!r}, which has no 8-bit images of 1, 3 or 4 channels; "
            "it takes a dataset with such a feature called image."
        )
    height, width = (image_size, image_size) if image_size else image.shape[:2]
    if height is None or width is None:
        raise ValueError(
            f"config.dataset.image_size is 0, but the images of {name} differ in size; "
            "set it to the height and width that they shall be resized to."
        )
    return height, width, image.shape[-1]


def _labels(name: str, features: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Keys under which examples have their labels, and the names of the classes or attributes (none if unknown)."""
    if "label" in features and features["label"].shape == ():
        return ("label",), tuple(getattr(features["label"], "names", None) or ())
    if "attributes" in features:
        names = tuple(sorted(features["attributes"]))  # CelebA's own order; TFDS does not keep one
        return tuple(f"attributes/{attribute}" for attribute in names), names
    raise ValueError(
        f"config.dataset.name is {name!r}, which has no labels; it takes a dataset with a feature label or attributes."
    )


def _decode_block(
    source: Any, keys: tuple[str, ...], channels: int, image_size: int, start: int
) -> tuple[UInt8[np.ndarray, "block height width channels"], Int[np.ndarray, "block keys"]]:
    # The examples' protocol buffers are read directly: TFDS's own way takes ten times longer for CelebA's 52 features.
    from tensorflow_datasets.proto import tf_example_pb2

    records = source.__getitems__(range(start, min(start + BLOCK, len(source))))
    examples = [tf_example_pb2.Example.FromString(record).features.feature for record in records]
    image = [pixels.decode(e["image"].bytes_list.value[0], channels, image_size) for e in examples]
    label = [[e[key].int64_list.value[0] for key in keys] for e in examples]
    return np.stack(image), np.array(label, np.int32)
