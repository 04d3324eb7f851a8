"""The Frechet distance between Gaussians fitted to features, from streamed float64 moments.

Dowson and Landau, "The Frechet distance between multivariate normal distributions", 1982; as a measure of generated
images: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", NeurIPS 2017.
"""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float, Float64

# Moments are updated by this many rows at a time however the rows arrive, so that batch sizes do not show in results.
_ROWS = 512


class Moments(NamedTuple):
    """Number, mean and centered second moment of the rows seen so far: what is streamed and merged.

    Attributes:
      number: of rows.
      mean: `[features]`, float64.
      scatter: `[features, features]`, float64, the sum of outer products of deviations from the mean.
    """

    number: int
    mean: Float64[np.ndarray, "features"]
    scatter: Float64[np.ndarray, "features features"]


class Gaussian(NamedTuple):
    """Mean and covariance (ddof 1) of features.

    Attributes:
      mean: `[features]`, float64.
      covariance: `[features, features]`, float64.
      number: of images behind it; None if unknown (files of pytorch-fid do not say).
    """

    mean: Float64[np.ndarray, "features"]
    covariance: Float64[np.ndarray, "features features"]
    number: int | None = None


def moments(features: Float[np.ndarray, "rows features"]) -> Moments:
    """Moments of the rows of one array of any float dtype, computed in float64 around their own mean."""
    rows = np.asarray(features, np.float64)
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"Features must be a non-empty [rows, features] array, not of shape {rows.shape}.")
    if not np.isfinite(rows).all():
        raise ValueError("Features hold NaN or infinity; look at the images that the network was given.")
    mean = rows.mean(axis=0)
    centered = rows - mean
    return Moments(len(rows), mean, centered.T @ centered)


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of the rows of both, exact up to float64 rounding: for batches, devices, hosts and folds.

    Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"Moments of {a.mean.size} and {b.mean.size} features cannot be merged.")
    count = a.number + b.number
    delta = b.mean - a.mean
    scatter = a.scatter + b.scatter + np.outer(delta, delta) * (a.number * b.number / count)
    return Moments(count, a.mean + delta * (b.number / count), scatter)


class Stream:
    """Accumulates moments of rows that arrive in batches of any size, in constant memory.

    The same rows in the same order give the same moments bit for bit, whatever the batches.

    >>> stream = Stream()
    >>> for start in (0, 2):
    ...     stream.add(np.arange(8.0).reshape(4, 2)[start : start + 2])
    >>> gaussian(stream.moments()).mean
    array([3., 4.])
    """

    def __init__(self) -> None:
        self._total: Moments | None = None
        self._pending: list[np.ndarray] = []

    def add(self, features: Float[np.ndarray, "rows features"]) -> None:
        """Take in `[rows, features]` (zero rows are fine)."""
        self._pending.append(np.asarray(features))
        if sum(map(len, self._pending)) >= _ROWS:
            rows = np.concatenate(self._pending)
            whole = len(rows) - len(rows) % _ROWS
            for start in range(0, whole, _ROWS):
                self._merge(rows[start : start + _ROWS])
            self._pending = [rows[whole:]]

    def moments(self) -> Moments:
        """The moments of everything added so far.

        Raises:
          ValueError: if nothing was added.
        """
        rows = np.concatenate(self._pending) if self._pending else np.zeros((0, 0))
        if not len(rows):
            if self._total is None:
                raise ValueError("No images were given, so there are no statistics.")
            return self._total
        last = moments(rows)
        return last if self._total is None else merge(self._total, last)

    def _merge(self, rows: np.ndarray) -> None:
        block = moments(rows)
        self._total = block if self._total is None else merge(self._total, block)


def gaussian(total: Moments) -> Gaussian:
    """Mean and covariance with ddof 1.

    Raises:
      ValueError: for fewer than two rows.
    """
    if total.number < 2:
        raise ValueError(f"A covariance needs at least 2 images, found {total.number}.")
    return Gaussian(total.mean, total.scatter / (total.number - 1), total.number)


def trace_sqrt_product(
    a: Float64[np.ndarray, "features features"], b: Float64[np.ndarray, "features features"]
) -> float:
    """tr((a b)^(1/2)) of two positive semidefinite matrices of any rank.

    With a = L L^T, the product a b has the eigenvalues of the symmetric matrix L^T b L, so neither a general matrix
    square root nor complex numbers arise, and nothing needs to be added to a covariance of low rank: a pivoted Cholesky
    factorization drops its null space.
    """
    packed, pivots, rank, _ = scipy.linalg.lapack.dpstrf(a, lower=1)
    order = pivots - 1
    b = b[np.ix_(order, order)]
    if rank == len(a):  # LAPACK forms L^T b L in place, at half the operations of two products
        product, _ = scipy.linalg.lapack.dsygst(np.asfortranarray(b), packed, itype=2, lower=1)
    elif rank:
        factor = np.tril(packed)[:, :rank]
        product = factor.T @ (b @ factor)
    else:
        return 0.0
    eigenvalues = scipy.linalg.eigh(product, lower=True, eigvals_only=True, driver="evd")
    return float(np.sum(np.sqrt(np.maximum(eigenvalues, 0.0))))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Frechet distance |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)).

    Raises:
      ValueError: if the shapes do not match.
    """
    for name, g in (("first", a), ("second", b)):
        if g.mean.ndim != 1 or g.covariance.shape != 2 * g.mean.shape:
            raise ValueError(
                f"The {name} statistics have a mean of shape {g.mean.shape} and a covariance of shape "
                f"{g.covariance.shape}; expected [features] and [features, features]."
            )
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"The statistics have {a.mean.size} and {b.mean.size} features; compute both with the same "
            "layer of the "
            "same network."
        )
    difference = a.mean - b.mean
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    return float(difference @ difference + traces - 2.0 * trace_sqrt_product(a.covariance, b.covariance))


def save(path: str | Path, statistics: Gaussian, extractor: str = "") -> None:
    """Write an npz that pytorch-fid reads too: `mu`, `sigma`, and for our own use `count` and `extractor`.

    Args:
      path: file to write, ending in .npz.
      statistics: what to store.
      extractor: identifier of the network behind it, which `load` compares.
    """
    np.savez(
        path,
        mu=statistics.mean,
        sigma=statistics.covariance,
        count=-1 if statistics.number is None else statistics.number,
        extractor=extractor,
    )


def load(path: str | Path, extractor: str = "") -> Gaussian:
    """Statistics from an npz with `mu` and `sigma`, ours or pytorch-fid's.

    Args:
      path: the file.
      extractor: identifier of the network to compare with; checked where both the file and the caller name one.

    Raises:
      ValueError: if the file is damaged, lacks an entry or was made with another network.
    """
    try:
        with np.load(path) as file:
            entries = {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable npz file ({error}); make it again.") from None
    if missing := {"mu", "sigma"} - entries.keys():
        raise ValueError(
            f"{path} has no {sorted(missing)[0]!r} (found {sorted(entries)}); statistics files hold mu and sigma."
        )
    made_with = str(entries.get("extractor", ""))
    if extractor and made_with and extractor != made_with:
        raise ValueError(
            f"{path} was made with {made_with}, but this comparison uses {extractor}; make it again "
            "with the same "
            "network and resize."
        )
    count = int(entries.get("count", -1))
    mean, covariance = entries["mu"].astype(np.float64), entries["sigma"].astype(np.float64)
    if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
        raise ValueError(
            f"{path} has mu of shape {mean.shape} and sigma of shape {covariance.shape}; expected "
            "[features] and "
            "[features, features]."
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError(f"{path} holds numbers that are not finite; make it again.")
    return Gaussian(mean, covariance, count if count >= 0 else None)
