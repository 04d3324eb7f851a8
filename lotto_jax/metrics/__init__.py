"""Metrics of images and networks.

```python
from lotto_jax.metrics import fid

fid("samples/", "reference.npz")
```
"""

from lotto_jax.metrics.cmmd import cmmd, cmmd_folds
from lotto_jax.metrics.extractors import Extractor, features, metric_name
from lotto_jax.metrics.fid import fid, fid_folds, reference_statistics, statistics
from lotto_jax.metrics.folds import FoldedDistance
from lotto_jax.metrics.frechet import Gaussian, frechet_distance
from lotto_jax.metrics.images import to_uint8
from lotto_jax.metrics.inception_score import InceptionScore, inception_score
from lotto_jax.metrics.kid import KernelDistance, kernel_distance
from lotto_jax.metrics.precision_recall import PrecisionRecall, precision_recall
from lotto_jax.metrics.registry import METRICS, Given, Metric

__all__ = [
    "METRICS",
    "Extractor",
    "FoldedDistance",
    "Gaussian",
    "Given",
    "InceptionScore",
    "KernelDistance",
    "Metric",
    "PrecisionRecall",
    "cmmd",
    "cmmd_folds",
    "features",
    "fid",
    "fid_folds",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "metric_name",
    "precision_recall",
    "reference_statistics",
    "statistics",
    "to_uint8",
]
