"""Inception features a second against torch-fidelity, and the Frechet distance against scipy's sqrtm."""

import time

import jax
import numpy as np
import scipy.linalg

from lotto_jax.metrics import extractors, frechet, weights
from scripts.benchmarks.common import Row, ask_torch, seconds

IMAGES = 16  # a batch


def run() -> list[Row]:
    """Measure; rows against torch-fidelity need .venv-parity."""
    return [_features(), _distance()]


def _features() -> Row:
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda s: rng.normal(0.0, np.sqrt(2.0 / np.prod(s.shape[:-1])), s.shape).astype(np.float32),
        weights.param_shapes(),
    )
    apply = extractors.inception_apply("tf1", "float32")
    extractor = extractors.Extractor("inception", "random", jax.device_put(params), apply, "2048")
    images = rng.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    theirs = ask_torch("metrics_torch.py", str(IMAGES))
    rate = IMAGES / seconds(lambda: extractors.features(images, extractor, batch_size=IMAGES))
    name = "Inception features of 32x32 images, images/s"
    if theirs is None:
        return Row(name, rate, "images/s", "torch-fidelity: no .venv-parity")
    peer = theirs["images_per_second"]
    return Row(name, rate, "images/s", f"torch-fidelity {peer:.3g} images/s", rate / peer, 1.0)


def _distance() -> Row:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(2048, 2048)) / 45.0 * np.geomspace(1.0, 0.01, 2048)
    sides = [
        frechet.gaussian(frechet.moments(np.maximum(rng.normal(size=(3000, 2048)) @ mixing, 0.0))) for _ in range(2)
    ]
    ours = seconds(lambda: frechet.frechet_distance(*sides), repeats=5)
    start = time.perf_counter()
    root = scipy.linalg.sqrtm(sides[0].covariance @ sides[1].covariance)
    theirs = time.perf_counter() - start
    found = frechet.trace_sqrt_product(sides[0].covariance, sides[1].covariance)
    np.testing.assert_allclose(found, np.trace(root).real, rtol=1e-4)
    return Row("Frechet distance at 2,048 features", ours, "s", f"scipy sqrtm {theirs:.3g} s", theirs / ours, 10.0)
