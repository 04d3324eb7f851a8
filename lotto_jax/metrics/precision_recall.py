"""Improved precision and recall.

Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS 2019.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_ROWS = 1024  # of the distance matrix that exist at a time


class PrecisionRecall(NamedTuple):
    """Both in [0, 1].

    Attributes:
      precision: share of generated images inside the manifold of real ones (fidelity).
      recall: share of real images inside the manifold of generated ones (diversity).
    """

    precision: float
    recall: float


def _distances(x: np.ndarray, y: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks of rows of the squared distances of every row of x to every row of y, float64."""
    norms = np.sum(y * y, axis=1)
    for start in range(0, len(x), _ROWS):
        block = x[start : start + _ROWS]
        yield np.maximum(np.sum(block * block, axis=1, keepdims=True) - 2.0 * (block @ y.T) + norms, 0.0)


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of every row to its k-th nearest other row."""
    # Each row is its own nearest, at distance 0: index k of the sorted distances.
    return np.concatenate([np.partition(block, k, axis=1)[:, k] for block in _distances(x, x)])


def _covered(x: np.ndarray, y: np.ndarray, radii: np.ndarray) -> float:
    """Share of rows of x that lie in the ball of at least one row of y."""
    return float(np.concatenate([np.any(block <= radii, axis=1) for block in _distances(x, y)]).mean())


def precision_recall(
    generated: Float[np.ndarray, "images features"], real: Float[np.ndarray, "images features"], k: int = 3
) -> PrecisionRecall:
    """Precision and recall of generated images, in this order of the arguments.

    Args:
      generated: features, float.
      real: features of the same network.
      k: the neighbor, not counting the image itself, whose distance is the radius of the ball around an
        image.

    Raises:
      ValueError: if a set has no k-th neighbor, or the features differ in number.
    """
    if generated.ndim != 2 or real.ndim != 2 or generated.shape[1] != real.shape[1]:
        raise ValueError(
            f"Features must be [images, features] of one network, found {generated.shape} and {real.shape}."
        )
    if min(len(generated), len(real)) <= k:
        raise ValueError(
            f"Precision and recall with k = {k} need more than {k} images a set, "
            f"found {len(generated)} and {len(real)}."
        )
    # Distances between neighbors are differences of large numbers; around the mean of the real images they
    # are smaller.
    center = np.mean(real, axis=0, dtype=np.float64)
    x, y = generated - center, real - center
    return PrecisionRecall(_covered(x, y, _radii(y, k)), _covered(y, x, _radii(x, k)))
