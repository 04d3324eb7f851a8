"""TFDS image datasets prepared on disk as ArrayRecord, read without TensorFlow."""

import difflib
import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from lotto_jax.data import cache, decoding, pixels
from lotto_jax.data.dataset import SPLITS, zeros


def load(name: str, data_dir: str, image_size: int) -> tuple[str, dict[str, np.ndarray]]:
    """Version and arrays of the newest prepared version (see `sources.Source`).

    Raises:
      ValueError: if none is prepared, or it has no splits, images or labels that can be used.
    """
    directory = _directory(data_dir)
    # The newest prepared version, found without importing TFDS: a cached dataset loads in well under a second.
    infos = sorted(
        (directory / name).glob("[0-9]*.[0-9]*.[0-9]*/dataset_info.json"),
        key=lambda path: tuple(int(part) for part in path.parent.name.split(".")),
    )
    if not infos:
        there = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
        close = difflib.get_close_matches(name, [*there, "digits", "mixture", "folder"], n=1)
        hint = f" (did you mean config.dataset.name={close[0]}?)" if close else ""
        raise ValueError(
            f"No prepared dataset {name!r} in {directory}{hint}; point config.dataset.data_dir (or TFDS_DATA_DIR) at "
            f"the directory that holds it, or {_preparation(name, directory)}"
        )
    info = infos[-1]
    decode = functools.partial(_decode, name, directory, info, image_size)
    return info.parent.name, decoding.cached(f"{name}-{info.parent.name}", image_size, decode)


def outline(name: str, data_dir: str, image_size: int, examples: int) -> dict[str, np.ndarray]:
    """Zeros in the shapes of images and labels, as TFDS knows them.

    Raises:
      ValueError: as `image_shape`, or if the numbers of examples are not known.
    """
    info = _info(name, data_dir)
    counts = {split: found.num_examples for split, found in info.splits.items() if split in SPLITS}
    if not counts and not examples:
        raise ValueError(
            f"How many examples {name} has is not known before it is prepared; point config.dataset.data_dir at the "
            "directory where it is, or set config.dataset.train_examples."
        )
    counts = counts or {"train": examples, "test": examples}
    keys, names = _labels(name, info.features)
    shape, label_shape = _image_shape(name, info.features, image_size), () if keys == ("label",) else (len(keys),)
    names = names or tuple(map(str, range(classes(name, data_dir, image_size) or 1)))
    arrays = {f"{split}_image": zeros((count, *shape), np.uint8) for split, count in counts.items()}
    arrays |= {f"{split}_label": zeros((count, *label_shape), np.int32) for split, count in counts.items()}
    return arrays | {"label_names": np.array(names)}


def image_shape(name: str, data_dir: str, image_size: int) -> tuple[int, int, int]:
    """(height, width, channels), known to TFDS even of a dataset that is not prepared.

    Raises:
      ValueError: if TFDS does not know the dataset, or its images cannot be read.
    """
    return _image_shape(name, _info(name, data_dir).features, image_size)


def classes(name: str, data_dir: str, image_size: int) -> int | None:
    """Number of classes or attributes; None if TFDS has no number.

    Raises:
      ValueError: if TFDS does not know the dataset, or it has no labels.
    """
    features = _info(name, data_dir).features
    keys, names = _labels(name, features)
    if keys == ("label",):
        return len(names) or getattr(features["label"], "num_classes", None)
    return len(keys)


def _directory(data_dir: str) -> Path:
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def _preparation(name: str, directory: Path) -> str:
    """How to prepare a dataset. The command `tfds build` would need Apache Beam and mlcroissant as well."""
    return (
        "prepare it on a machine with a network, in an environment of its own, since this project does without "
        "TensorFlow: pip install tensorflow tensorflow-datasets array-record importlib-resources, then "
        f'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}, data_dir={str(directory)!r}, '
        "file_format='array_record').download_and_prepare()\""
    )


def _info(name: str, data_dir: str) -> Any:
    """What TFDS knows about a dataset; it has no splits where it is not prepared."""
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=_directory(data_dir), try_gcs=False).info
    except tfds.core.DatasetNotFoundError:
        raise ValueError(f"config.dataset.name is {name!r}, which TFDS does not know.") from None


def _decode(name: str, directory: Path, info: Path, image_size: int, entry: cache.Writer) -> None:
    """Write every split to the cache, images decoded and fitted."""
    import tensorflow_datasets as tfds

    file_format = json.loads(info.read_text()).get("fileFormat", "tfrecord")
    if file_format != "array_record":
        raise ValueError(
            f"The dataset in {info.parent} has the format {file_format}, which only TensorFlow reads; move it away and "
            f"{_preparation(name, directory)}"
        )
    builder = tfds.builder_from_directory(info.parent)
    splits = [split for split in SPLITS if split in builder.info.splits]
    if not {"train", "test"} <= set(splits):
        raise ValueError(
            f"config.dataset.name is {name!r}, whose splits are {', '.join(builder.info.splits)}; "
            "it takes a dataset with the splits train and test."
        )
    shape = _image_shape(name, builder.info.features, image_size)
    keys, names = _labels(name, builder.info.features)
    if names:
        entry.array("label_names", (len(names),), np.array(names).dtype).append(np.array(names))
    label_shape = () if keys == ("label",) else (len(keys),)
    for split in splits:
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        source = builder.as_data_source(split=split, deserialize_method=raw)
        decode = functools.partial(_decode_block, source, keys, label_shape, shape[-1], image_size)
        decoding.write(entry, split, shape, label_shape, len(source), decode, f"{name} {split}")


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
        raise ValueError(decoding.sizes_differ(name))
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
    source: Any, keys: tuple[str, ...], label_shape: tuple[int, ...], channels: int, image_size: int, block: range
) -> decoding.Block:
    # The examples' protocol buffers are read directly: TFDS's own way takes ten times longer for CelebA's 52 features.
    from tensorflow_datasets.proto import tf_example_pb2

    examples = [tf_example_pb2.Example.FromString(record).features.feature for record in source.__getitems__(block)]
    image = [pixels.decode(e["image"].bytes_list.value[0], channels, image_size) for e in examples]
    label = [[e[key].int64_list.value[0] for key in keys] for e in examples]
    return np.stack(image), np.array(label, np.int32).reshape(-1, *label_shape)
