"""CMMD against loops over all pairs."""

import itertools
import math

import numpy as np
import pytest

from lotto_jax.metrics import cmmd, cmmd_folds


def by_pairs(x, y):
    x, y = ([row / np.linalg.norm(row) for row in rows.astype(np.float64)] for rows in (x, y))
    kernel = lambda a, b: math.exp(-float(np.sum((a - b) ** 2)) / 200.0)  # noqa: E731
    mean = lambda p, q: sum(kernel(a, b) for a, b in itertools.product(p, q)) / (len(p) * len(q))  # noqa: E731
    return 1000.0 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


def test_it_is_the_mean_over_all_pairs():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 4)).astype(np.float32), 3.0 * rng.normal(1.0, 1.0, (5, 4)).astype(np.float32)
    assert cmmd(x, y) == pytest.approx(by_pairs(x, y), rel=1e-9) == pytest.approx(cmmd(y, x), rel=1e-9)
    assert cmmd(x, x) == pytest.approx(0.0, abs=1e-9)
    folds = cmmd_folds(x, y, 2)
    assert folds.values == (cmmd(x[::2], y), cmmd(x[1::2], y)) and folds.images == 3
    assert folds.standard_error == pytest.approx(abs(folds.values[0] - folds.values[1]) / 2)


def test_blocks_do_not_show():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2100, 2)), rng.normal(0.5, 1.0, (30, 2))
    normal = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y)]
    means = [
        np.mean(np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / 200))
        for a, b in (normal[:1] * 2, normal[1:] * 2, normal)
    ]
    assert cmmd(x, y) == pytest.approx(1000 * (means[0] + means[1] - 2 * means[2]), abs=1e-8)


@pytest.mark.parametrize("shapes", [((3, 4), (3, 5)), ((0, 4), (3, 4)), ((3,), (3,))])
def test_features_of_two_networks_are_refused(shapes):
    with pytest.raises(ValueError, match="of one network, found"):
        cmmd(*map(np.ones, shapes))
    with pytest.raises(ValueError, match="needs 2 to 3 folds"):
        cmmd_folds(np.ones((3, 2)), np.ones((3, 2)), 1)
