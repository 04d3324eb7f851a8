"""CLIP maximum mean discrepancy.

Jayasumana et al., "Rethinking FID: Towards a Better Evaluation Metric for Image Generation", CVPR 2024.
"""

import numpy as np
from jaxtyping import Float

from lotto_jax.metrics.folds import FoldedDistance, folded

SIGMA = 10.0  # of the Gaussian kernel, on features of length 1
SCALE = 1000.0  # for numbers that are easy to read
_ROWS = 2048  # of a kernel matrix that exist at a time


def _mean_kernel(x: np.ndarray, y: np.ndarray) -> float:
    """Mean of exp(-|a - b|^2 / (2 SIGMA^2)) over all pairs of rows."""
    total = 0.0
    for start in range(0, len(x), _ROWS):
        rows = x[start : start + _ROWS]
        squared = np.sum(rows**2, axis=1)[:, None] + np.sum(y**2, axis=1) - 2.0 * rows @ y.T
        total += float(np.sum(np.exp(-np.maximum(squared, 0.0) / (2.0 * SIGMA**2))))
    return total / (len(x) * len(y))


def cmmd(generated: Float[np.ndarray, "images features"], real: Float[np.ndarray, "images features"]) -> float:
    """Squared maximum mean discrepancy of CLIP features of length 1, times 1,000; lower is better.

    All pairs count, an image with itself too, as in the authors' code; so it is never below 0, and biased upward by an
    amount that falls as 1 / images. The paper takes CLIP ViT-L/14 at 336 pixels: compare numbers of one network only.

    Args:
      generated: features, float; they are scaled to length 1 here. Computed in float64.
      real: features of the same network.

    Raises:
      ValueError: if the features differ in number, or there are none.
    """
    if generated.ndim != 2 or real.ndim != 2 or generated.shape[1] != real.shape[1] or not len(generated) * len(real):
        raise ValueError(
            f"Features must be [images, features] of one network, found {generated.shape} and {real.shape}."
        )
    x, y = (
        f.astype(np.float64) / np.linalg.norm(f.astype(np.float64), axis=1, keepdims=True) for f in (generated, real)
    )
    return SCALE * (_mean_kernel(x, x) + _mean_kernel(y, y) - 2.0 * _mean_kernel(x, y))


def cmmd_folds(
    generated: Float[np.ndarray, "images features"], real: Float[np.ndarray, "images features"], folds: int = 10
) -> FoldedDistance:
    """Mean and standard error of `cmmd` over disjoint folds of the generated images; image i is in fold i mod `folds`.

    Raises:
      ValueError: for fewer than two folds, or fewer images than folds.
    """
    if not 2 <= folds <= len(generated):
        raise ValueError(f"A standard error needs 2 to {len(generated)} folds of these images, found {folds}.")
    return folded([cmmd(generated[fold::folds], real) for fold in range(folds)], len(generated) // folds)
