"""A function of the user's own that gives the data: `config.dataset.name` is `"package.module:function"`.

It is called with `data_dir` and `image_size`, as far as it has parameters for them, and returns a `Dataset`, or a dict:

    {"train_image": uint8 [n, height, width, channels], "test_image": ...,  # and "validation_image", if there are any
     "train_label": int [n] or [n, attributes], "test_label": ...,          # for all splits, or for none: all 0
     "label_names": [...]}                                                  # optional

Nothing is cached: a function that takes long stores what it makes itself, and arrays that it maps from a file
(`np.load(path, mmap_mode="r")`) stay there.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from lotto_jax import names
from lotto_jax.data import pixels
from lotto_jax.data.dataset import SPLITS, Dataset, Split, number_of_classes

FIELD = "config.dataset.name"
KEYS = (*(f"{split}_{part}" for split in SPLITS for part in ("image", "label")), "label_names")


def load(name: str, data_dir: str, image_size: int) -> tuple[str, dict[str, np.ndarray]]:
    """The version (empty, unless a `Dataset` has one) and the arrays that the function returns (see `sources.Source`).

    Raises:
      ValueError: if there is no such function, or what it takes or returns is something else than described above.
    """
    function = names.resolve(name, FIELD)
    returned = function(**_arguments(name, function, {"data_dir": data_dir, "image_size": image_size}))
    version, made = _parts(name, returned)
    if unknown := sorted(str(key) for key in set(made) - set(KEYS)):
        raise _refusal(name, f"returns {', '.join(unknown)}; it may return {', '.join(KEYS)}")
    if missing := [key for key in ("train_image", "test_image") if key not in made]:
        raise _refusal(name, f"returns no {' and no '.join(missing)}; add that to what it returns")
    splits = [split for split in SPLITS if f"{split}_image" in made]
    images = {split: _images(name, split, made[f"{split}_image"], image_size) for split in splits}
    for split in splits:
        if images[split].shape[1:] != images["train"].shape[1:]:
            raise _refusal(
                name,
                f"returns images of {_by(images['train'])} for training and of {_by(images[split])} in {split}_image; "
                "give them one shape",
            )
    labels = _labels(name, made, {split: len(images[split]) for split in splits})
    arrays = {f"{split}_image": images[split] for split in splits}
    arrays |= {f"{split}_label": labels[split] for split in splits}
    if label_names := _label_names(name, made, labels):
        arrays["label_names"] = np.array(label_names)
    return version, arrays


def outline(name: str, data_dir: str, image_size: int, examples: int) -> dict[str, np.ndarray]:
    """What the function returns; it is called.

    Raises:
      ValueError: as `load`.
    """
    return load(name, data_dir, image_size)[1]


def image_shape(name: str, data_dir: str, image_size: int) -> tuple[int, int, int]:
    """(height, width, channels) of the images that the function returns; it is called.

    Raises:
      ValueError: as `load`.
    """
    height, width, channels = load(name, data_dir, image_size)[1]["train_image"].shape[1:]
    return height, width, channels


def classes(name: str, data_dir: str, image_size: int) -> int:
    """Number of classes or attributes of the labels that the function returns; it is called.

    Raises:
      ValueError: as `load`.
    """
    arrays = load(name, data_dir, image_size)[1]
    return number_of_classes(arrays["train_label"], arrays.get("label_names", ()))


def _refusal(name: str, what: str) -> ValueError:
    return ValueError(f"{FIELD} is {name!r}, which {what}.")


def _by(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape[1:]))


def _arguments(name: str, function: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    if not callable(function):
        raise _refusal(name, f"is not a function ({type(function).__name__}); name a function that returns the data")
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        taken = dict(fields)
    else:
        taken = {p.name: fields[p.name] for p in parameters if p.name in fields and p.kind is not p.POSITIONAL_ONLY}
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in optional and p.name not in taken]
    if needed:
        raise _refusal(
            name, f"needs {', '.join(needed)}, but is called with {' and '.join(fields)} only; give that a default"
        )
    return taken


def _parts(name: str, returned: Any) -> tuple[str, Mapping[str, Any]]:
    """The version and, by key, what was returned."""
    if isinstance(returned, Dataset):
        splits: dict[str, Split] = {split: getattr(returned, split) for split in SPLITS}
        made: dict[str, Any] = {"label_names": returned.label_names} if returned.label_names else {}
        for split, examples in splits.items():
            if split != "validation" or len(examples.image):
                made |= {f"{split}_image": examples.image, f"{split}_label": examples.label}
        return returned.version, made
    if not isinstance(returned, Mapping):
        raise _refusal(name, f"returns a {type(returned).__name__}; it may return a Dataset or a dict of arrays")
    return "", returned


def _images(name: str, split: str, image: Any, image_size: int) -> np.ndarray:
    image = np.asarray(image)
    key = f"{split}_image"
    if image.dtype != np.uint8:
        raise _refusal(name, f"returns {key} of dtype {image.dtype}; it takes uint8, from 0 to 255")
    if image.ndim != 4 or not len(image) or image.shape[-1] not in pixels.MODES:
        raise _refusal(
            name,
            f"returns {key} of shape {image.shape}; it takes [n, height, width, channels] with some images of 1, 3 or "
            "4 channels",
        )
    if image_size and image.shape[1:3] != (image_size, image_size):
        raise ValueError(
            f"config.dataset.image_size is {image_size}, but {FIELD} is {name!r}, which returns {key} of {_by(image)}; "
            "let it take image_size and resize, or set config.dataset.image_size to 0."
        )
    return image


def _labels(name: str, made: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """int32 labels by split."""
    given = [split for split in SPLITS if f"{split}_label" in made]
    if not given:
        return {split: np.zeros(n, np.int32) for split, n in counts.items()}
    if set(given) != set(counts):
        wanted = ", ".join(f"{split}_label" for split in counts)
        raise _refusal(name, f"returns labels for {', '.join(given)} only; return {wanted}, or none")
    labels = {split: np.asarray(made[f"{split}_label"]) for split in counts}
    shape = labels["train"].shape[1:]
    for split, label in labels.items():
        key = f"{split}_label"
        if label.dtype.kind not in "iub":
            raise _refusal(name, f"returns {key} of dtype {label.dtype}; it takes integers")
        if label.shape != (counts[split], *shape) or label.ndim > 2 or not label.size:
            wanted = f"[{counts[split]}] or [{counts[split]}, attributes], with the attributes of train_label"
            raise _refusal(name, f"returns {key} of shape {label.shape}; it takes {wanted}")
        if label.min() < 0 or (label.ndim == 2 and label.max() > 1):
            raise _refusal(
                name, f"returns {key} from {label.min()} to {label.max()}; classes begin at 0, attributes are 0 or 1"
            )
    return {split: label.astype(np.int32) for split, label in labels.items()}


def _label_names(name: str, made: Mapping[str, Any], labels: Mapping[str, np.ndarray]) -> list[str]:
    """As returned, else the numbers of the classes (of all splits, not of those examples that are used)."""
    count = max(number_of_classes(label, ()) for label in labels.values())
    attributes = labels["train"].ndim > 1
    if label_names := [str(label) for label in made.get("label_names", ())]:
        if len(label_names) < count or (attributes and len(label_names) > count):
            kind = "attributes" if attributes else "classes"
            raise _refusal(name, f"returns {len(label_names)} label_names for labels of {count} {kind}; name each")
        return label_names
    return [] if attributes else [str(number) for number in range(count)]
