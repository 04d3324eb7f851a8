"""Error bars of distances between sets of images: over disjoint folds of the generated ones."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class FoldedDistance(NamedTuple):
    """Distances of disjoint folds of the generated images to the whole reference.

    A fold has a fraction of the images, so its distance is biased upward against the distance of all images; compare
    it only with the distances of folds of the same size.

    Attributes:
      mean: over the folds.
      standard_error: of that mean: standard deviation (ddof 1) / sqrt(folds).
      values: one distance a fold.
      images: in the smallest fold.
    """

    mean: float
    standard_error: float
    values: tuple[float, ...]
    images: int


def folded(values: Sequence[float], images: int) -> FoldedDistance:
    """The distances of two folds or more, of so many images each at least."""
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return FoldedDistance(float(np.mean(values)), error, tuple(values), images)
