"""Inception score.

Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016. Defaults are torch-fidelity's.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax, logsumexp


class InceptionScore(NamedTuple):
    """Mean and standard deviation (ddof 0) of the scores of the splits."""

    mean: float
    std: float


def inception_score(logits: Float[np.ndarray, "images classes"], splits: int = 10, seed: int = 2020) -> InceptionScore:
    """exp of the mean KL divergence between the class probabilities of each image and their mean, in float64.

    Args:
      logits: of the generated images, any float dtype; the literature uses `logits_unbiased`.
      splits: parts that the shuffled images are divided into.
      seed: of the shuffle.

    Raises:
      ValueError: for fewer images than splits, or logits that are not finite.
    """
    if logits.ndim != 2 or len(logits) < splits:
        raise ValueError(
            f"The Inception score needs logits [images, classes] of at least {splits} images (one a split), "
            f"found shape {logits.shape}."
        )
    if not np.isfinite(logits).all():
        raise ValueError("Logits are not finite, so there is no Inception score; check the images and the weights.")
    order = np.random.RandomState(seed).permutation(len(logits))
    log_p = log_softmax(np.asarray(logits, np.float64)[order], axis=1)
    bounds = [i * len(log_p) // splits for i in range(splits + 1)]
    scores = []
    for start, stop in itertools.pairwise(bounds):
        part = log_p[start:stop]
        marginal = logsumexp(part, axis=0) - np.log(len(part))  # finite where all probabilities underflow
        divergence = np.sum(np.exp(part) * (part - marginal), axis=1)
        scores.append(np.exp(np.mean(divergence)))
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))
