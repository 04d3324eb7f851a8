"""Scikit-learn's 1,797 real 8x8 digits, which come with it; a fixed random fifth is the test split."""

import numpy as np

from lotto_jax.data import pixels


def load(name: str, data_dir: str, image_size: int) -> tuple[str, dict[str, np.ndarray]]:
    """The digits (see `sources.Source`)."""
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


def outline(name: str, data_dir: str, image_size: int, examples: int) -> dict[str, np.ndarray]:
    """The digits; they are few."""
    return load(name, data_dir, image_size)[1]


def image_shape(name: str, data_dir: str, image_size: int) -> tuple[int, int, int]:
    """(height, width, channels)."""
    return (image_size or 8, image_size or 8, 1)


def classes(name: str, data_dir: str, image_size: int) -> int:
    """Ten."""
    return 10
