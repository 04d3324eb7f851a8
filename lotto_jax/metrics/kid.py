"""Kernel Inception distance.

Binkowski et al., "Demystifying MMD GANs", ICLR 2018. Defaults are torch-fidelity's.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class KernelDistance(NamedTuple):
    """Mean and standard deviation (ddof 0) over the subsets; unbiased, so it can be below 0."""

    mean: float
    std: float


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x y / d + 1)^3, products in the dtype of the features and the rest in float64."""
    return ((x @ y.T).astype(np.float64) / x.shape[1] + 1.0) ** 3


def kernel_distance(
    generated: Float[np.ndarray, "images features"],
    real: Float[np.ndarray, "images features"],
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> KernelDistance:
    """Unbiased squared maximum mean discrepancy with a cubic kernel, averaged over random subsets.

    Args:
      generated: features, float.
      real: features of the same network.
      subsets: number of draws.
      subset_size: images drawn from each set, without replacement.
      seed: of the draws.

    Raises:
      ValueError: if a set has fewer images than `subset_size`, or the features differ in number.
    """
    if generated.ndim != 2 or real.ndim != 2 or generated.shape[1] != real.shape[1]:
        raise ValueError(
            f"Features must be [images, features] of one network, found {generated.shape} and {real.shape}."
        )
    if min(len(generated), len(real)) < subset_size:
        raise ValueError(
            f"KID draws subsets of {subset_size} images, but there are {len(generated)} and {len(real)}; "
            "give more images or a smaller subset_size."
        )
    rng = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x = generated[rng.choice(len(generated), subset_size, replace=False)]
        y = real[rng.choice(len(real), subset_size, replace=False)]
        xx, yy = _kernel(x, x), _kernel(y, y)
        within = np.sum(xx) - np.trace(xx) + np.sum(yy) - np.trace(yy)
        values.append(within / (subset_size * (subset_size - 1)) - 2.0 * np.mean(_kernel(x, y)))
    return KernelDistance(float(np.mean(values)), float(np.std(values)))
