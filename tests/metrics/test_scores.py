"""Inception score, KID, precision and recall against their definitions."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import erf
from scipy.stats import norm

from lotto_jax.metrics import inception_score, kernel_distance, precision_recall
from lotto_jax.metrics.energy import energy_distance


def test_inception_score_of_extremes():
    """Certain and evenly spread over C classes: C. The same for every image: 1."""
    certain = np.tile(np.eye(5) * 1000.0, (40, 1))
    one_split = inception_score(certain, splits=1)
    assert one_split.mean == pytest.approx(5.0) and one_split.std == 0.0
    assert inception_score(np.ones((50, 7))) == pytest.approx((1.0, 0.0))


def test_inception_score_splits_cover_all_images_once():
    logits = np.random.default_rng(0).normal(size=(23, 4))
    order = np.random.RandomState(2020).permutation(23)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = []
    for part in (order[:7], order[7:15], order[15:]):  # floor(23 i / 3)
        q = p[part].mean(axis=0)
        scores.append(np.exp(np.mean([np.sum(r * np.log(r / q)) for r in p[part]])))
    assert inception_score(logits, splits=3) == pytest.approx((np.mean(scores), np.std(scores, ddof=0)))


def test_energy_distance_by_its_definition():
    """E|x - y| of normal numbers is s sqrt(2 / pi) exp(-m^2 / 2 s^2) + m erf(m / s sqrt(2)); here of quantiles."""
    a, b = (norm.ppf((np.arange(n) + 0.5) / n).reshape(n, 1, 1, 1) + mean for n, mean in ((3000, 0), (2500, 1)))
    s = 2**0.5  # of a difference
    apart = 2 * s / (2 * np.pi) ** 0.5 * np.exp(-1 / (2 * s**2)) + erf(1 / (s * 2**0.5))
    assert energy_distance(a, b) == pytest.approx(2 * apart - 4 * s / (2 * np.pi) ** 0.5, abs=0.005)
    assert abs(energy_distance(a[::2], a[1::2])) < 5e-3
    with pytest.raises(ValueError, match="two examples or more of each; it got 1 and 2500"):
        energy_distance(a[:1], b)


def test_kernel_distance_by_its_definition():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 5)), rng.normal(0.5, 1.0, size=(6, 5))

    def k(a, b):
        return (a @ b / 5 + 1) ** 3

    within = sum(k(z[i], z[j]) for z in (x, y) for i in range(6) for j in range(6) if i != j) / 30
    across = sum(k(a, b) for a in x for b in y) * 2 / 36
    found = kernel_distance(x, y, subsets=3, subset_size=6)  # every subset is the whole set
    assert found == pytest.approx((within - across, 0.0), abs=1e-12)


def test_kernel_distance_is_unbiased():
    """Over draws of one distribution it averages to 0; the biased estimator is always above."""
    rng = np.random.default_rng(1)
    values = [kernel_distance(*rng.normal(size=(2, 40, 6)), subsets=1, subset_size=40).mean for _ in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200)
    assert np.min(values) < 0


def test_precision_and_recall_by_their_definition():
    rng = np.random.default_rng(0)
    generated, real = rng.normal(0.8, 0.7, (150, 4)), rng.normal(0.0, 1.0, (1100, 4))

    def covered(x, y):
        radii = np.sort(cdist(y, y), axis=1)[:, 3]  # index 0 is the image itself
        return np.mean(np.any(cdist(x, y) <= radii[None], axis=1))

    assert precision_recall(generated, real) == pytest.approx((covered(generated, real), covered(real, generated)))


def test_precision_and_recall_know_their_order():
    """Generated images in one corner of the real ones are faithful, but not diverse."""
    real = np.random.default_rng(0).uniform(size=(800, 2))
    generated = np.random.default_rng(1).uniform(size=(200, 2)) * 0.2 + 0.4
    result = precision_recall(generated, real)
    assert result.precision > 0.9 and result.recall < 0.2


def test_inception_score_of_classes_that_no_image_is_of_and_of_broken_logits():
    logits = np.tile(np.array([[0.0, 0.0, -2000.0]]), (20, 1))
    assert inception_score(logits) == pytest.approx((1.0, 0.0))
    with pytest.raises(ValueError, match="not finite"):
        inception_score(np.where(logits < -1, np.nan, logits))


def test_too_few_images_are_refused():
    x = np.zeros((5, 3))
    with pytest.raises(ValueError, match="at least 10 images"):
        inception_score(x)
    with pytest.raises(ValueError, match="subsets of 1000 images, but there are 5 and 5"):
        kernel_distance(x, x)
    with pytest.raises(ValueError, match="more than 5 images a set, found 5 and 5"):
        precision_recall(x, x, k=5)
    for metric in (kernel_distance, precision_recall):
        with pytest.raises(ValueError, match=r"\(5, 3\) and \(5, 2\)"):
            metric(x, x[:, :2])
