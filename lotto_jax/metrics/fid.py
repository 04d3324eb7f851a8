"""The Frechet (Inception) distance between two sets of images, in constant memory."""

import contextlib
import hashlib
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np

from lotto_jax.data import cache
from lotto_jax.metrics import frechet
from lotto_jax.metrics.extractors import Extractor, inception, stream
from lotto_jax.metrics.folds import FoldedDistance, folded
from lotto_jax.metrics.images import Source, image_files


def statistics(source: Source, extractor: Extractor, batch_size: int = 64) -> frechet.Gaussian:
    """Mean and covariance of the features of all images, accumulated in float64.

    Args:
      source: array or batches (uint8, or float in [-1, 1]; NHWC), folder, or an npz file with `mu` and `sigma`.
      extractor: the network.
      batch_size: images a step; does not change the result.

    Raises:
      ValueError: for unreadable, empty or misshaped input.
    """
    if isinstance(source, str | Path) and Path(source).suffix == ".npz":
        return frechet.load(source, extractor.identifier)
    total = frechet.Stream()
    for part in stream(source, extractor, batch_size=batch_size):
        total.add(part[extractor.layer])
    return frechet.gaussian(total.moments())


def _content_key(source: Source) -> str | None:
    """Digest of an array's numbers or of a folder's names, sizes and times; None where neither."""
    digest = hashlib.sha256()
    if isinstance(source, np.ndarray):
        digest.update(f"{source.dtype} {source.shape}".encode())
        digest.update(np.ascontiguousarray(source).data)
    elif isinstance(source, str | Path) and Path(source).suffix != ".npz":
        for path in image_files(source):
            status = path.stat()
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        digest.update(str(Path(source).resolve()).encode())
    else:
        return None
    return digest.hexdigest()[:32]


def reference_statistics(source: Source, extractor: Extractor, batch_size: int = 64) -> frechet.Gaussian:
    """As `statistics`, but the statistics of host arrays and of folders are kept in the user's cache.

    An array is found again by its content, a folder by the names, sizes and times of its files, and both by the
    network, so what is cached is never out of date.
    """
    key = _content_key(source)
    if key is None:
        return statistics(source, extractor, batch_size)
    path = cache.root() / "statistics" / f"{key}-{extractor.identifier}-{extractor.layer}.npz"
    if path.is_file():
        with contextlib.suppress(ValueError):  # damaged: made again
            return frechet.load(path, extractor.identifier)
    result = statistics(source, extractor, batch_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        frechet.save(temporary, result, extractor.identifier)
        os.replace(temporary, path)
    return result


def warn_bias(name: str, count: int | None, features: int) -> None:
    """Warn if `count` images (None: unknown) are fewer than the features of a Frechet distance."""
    if count is not None and count < features:
        warnings.warn(
            f"{name}: {count} images are fewer than the {features} features, so the covariance has no "
            "full rank and "
            "the distance is biased upward; compare it only with distances of as many images.",
            stacklevel=3,
        )


def fid(generated: Source, reference: Source, extractor: Extractor | None = None, batch_size: int = 64) -> float:
    """Frechet Inception distance of two sets of images; symmetric, lower is better.

    ```python
    fid("samples/", "cifar10_train.npz")
    ```

    Args:
      generated: uint8 array `[images, height, width, 3]`, float array in [-1, 1], iterable of such batches, folder of
        images, or an npz file with `mu` and `sigma` (pytorch-fid's format).
      reference: images or statistics in any of the same forms; the statistics of arrays and folders are kept in the
        user's cache.
      extractor: see `extractors.inception` for resize modes and weights; None means the defaults there. With another
        network the result is a Frechet distance, but not a FID (see `extractors.metric_name`).
      batch_size: images a step; does not change the result.

    Raises:
      FileNotFoundError: if the Inception weights are missing.
      ValueError: for unreadable, empty or misshaped input.
    """
    extractor = inception() if extractor is None else extractor
    a = statistics(generated, extractor, batch_size)
    b = reference_statistics(reference, extractor, batch_size)
    for name, side in (("generated", a), ("reference", b)):
        warn_bias(name, side.number, len(side.mean))
    return frechet.frechet_distance(a, b)


def fid_folds(
    generated: Source,
    reference: Source,
    extractor: Extractor | None = None,
    folds: int = 10,
    batch_size: int = 64,
) -> FoldedDistance:
    """Mean and standard error of the FID over disjoint folds of the generated images, in one pass.

    Image i belongs to fold i modulo `folds`. The other arguments and the errors are as in `fid`.

    Raises:
      ValueError: for fewer than two folds, or statistics in place of generated images.
    """
    if folds < 2:
        raise ValueError(f"A standard error needs at least 2 folds, found {folds}.")
    if isinstance(generated, str | Path) and Path(generated).suffix == ".npz":
        raise ValueError(f"{generated} holds statistics, which cannot be divided into folds; give images.")
    extractor = inception() if extractor is None else extractor
    totals = [frechet.Stream() for _ in range(folds)]
    seen = 0
    for part in stream(generated, extractor, batch_size=batch_size):
        rows = part[extractor.layer]
        for fold, total in enumerate(totals):
            total.add(rows[(fold - seen) % folds :: folds])
        seen += len(rows)
    if seen < 2 * folds:
        raise ValueError(f"{folds} folds need at least {2 * folds} images, found {seen}.")
    b = reference_statistics(reference, extractor, batch_size)
    sides = [frechet.gaussian(total.moments()) for total in totals]
    warn_bias("each fold", seen // folds, len(b.mean))
    warn_bias("reference", b.number, len(b.mean))
    return folded([frechet.frechet_distance(a, b) for a in sides], seen // folds)
