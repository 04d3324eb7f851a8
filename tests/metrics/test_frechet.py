import numpy as np
import pytest
import scipy.linalg

from lotto_jax.metrics import frechet


@pytest.fixture
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(1300, 40)) @ rng.normal(size=(40, 40)) + 3.0).astype(np.float32)


def streamed(rows: np.ndarray, sizes) -> frechet.Moments:
    stream = frechet.Stream()
    start = 0
    for size in sizes:
        stream.add(rows[start : start + size])
        start += size
    assert start >= len(rows)
    return stream.moments()


def test_streamed_statistics_are_those_of_numpy(rows):
    g = frechet.gaussian(streamed(rows, [500, 0, 800]))
    np.testing.assert_allclose(g.mean, rows.astype(np.float64).mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(g.covariance, np.cov(rows.astype(np.float64), rowvar=False, ddof=1), rtol=1e-11)
    assert g.number == 1300


@pytest.mark.parametrize("size", [1, 7, 64, 512, 513, 1300])
def test_any_batch_size_gives_the_same_bits(rows, size):
    expected = streamed(rows, [1300])
    found = streamed(rows, [size] * -(-1300 // size))
    assert np.array_equal(found.mean, expected.mean)
    assert np.array_equal(found.scatter, expected.scatter)


def test_merging_parts_is_the_whole(rows):
    parts = [frechet.moments(part) for part in np.split(rows, [1, 100, 101, 900])]
    total = parts[0]
    for part in parts[1:]:
        total = frechet.merge(total, part)
    whole = frechet.moments(rows)
    assert total.number == whole.number
    np.testing.assert_allclose(total.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(total.scatter, whole.scatter, rtol=1e-10)


def test_a_large_mean_does_not_drown_the_variance():
    """Sums of squares in float32, or uncentered in float64, lose this."""
    rows = np.random.default_rng(1).normal(size=(2000, 3)) * 1e-3 + 1e5
    g = frechet.gaussian(streamed(rows, [2000]))
    np.testing.assert_allclose(np.sqrt(np.diag(g.covariance)), 1e-3, rtol=0.1)


def semidefinite(rank: int, size: int, seed: int) -> np.ndarray:
    factor = np.random.default_rng(seed).normal(size=(size, rank)) * np.geomspace(1, 1e-3, rank)
    return factor @ factor.T


@pytest.mark.parametrize("ranks", [(30, 30), (30, 10), (10, 30), (10, 12), (1, 1)])
def test_trace_of_the_root_at_any_rank(ranks):
    """For a = x x^T and b = y y^T the trace is the sum of the singular values of x^T y."""
    a, b = semidefinite(ranks[0], 30, 0), semidefinite(ranks[1], 30, 1)
    rng = [np.random.default_rng(s) for s in (0, 1)]
    x, y = (g.normal(size=(30, r)) * np.geomspace(1, 1e-3, r) for g, r in zip(rng, ranks, strict=True))
    expected = np.linalg.svd(x.T @ y, compute_uv=False).sum()
    assert frechet.trace_sqrt_product(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet.trace_sqrt_product(b, a) == pytest.approx(expected, rel=1e-6)


def test_trace_agrees_with_the_general_matrix_root(rows):
    a = np.cov(rows[:600], rowvar=False)
    b = np.cov(rows[600:] * np.linspace(0.5, 2, 40, dtype=np.float32), rowvar=False)
    expected = np.trace(scipy.linalg.sqrtm(a @ b)).real
    assert frechet.trace_sqrt_product(a, b) == pytest.approx(expected, rel=1e-9)


def test_distance_of_diagonal_gaussians():
    """Where covariances commute, the distance is |m1 - m2|^2 + |s1 - s2|^2 of the standard deviations."""
    s1, s2 = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.0, 0.5])
    a = frechet.Gaussian(np.array([1.0, 0.0, 2.0]), np.diag(s1**2))
    b = frechet.Gaussian(np.array([0.0, 0.0, 4.0]), np.diag(s2**2))
    assert frechet.frechet_distance(a, b) == pytest.approx(5.0 + np.sum((s1 - s2) ** 2), rel=1e-12)
    zero = frechet.Gaussian(a.mean, np.zeros((3, 3)))
    assert frechet.frechet_distance(zero, a) == pytest.approx(5.0, rel=1e-12)


def test_distance_to_itself_is_zero_at_full_and_low_rank(rows):
    for part in (rows, rows[:20]):
        g = frechet.gaussian(frechet.moments(part))
        # The root of an eigenvalue that is rounding alone is 1e-8 of the largest.
        assert frechet.frechet_distance(g, g) == pytest.approx(0.0, abs=1e-5 * np.trace(g.covariance))


def test_files_read_back(rows, tmp_path):
    g = frechet.gaussian(frechet.moments(rows))
    frechet.save(tmp_path / "s.npz", g, "inception-a")
    for extractor in ("", "inception-a"):
        found = frechet.load(tmp_path / "s.npz", extractor)
        assert np.array_equal(found.mean, g.mean) and np.array_equal(found.covariance, g.covariance)
        assert found.number == 1300
    np.savez(tmp_path / "plain.npz", mu=g.mean, sigma=g.covariance)
    assert frechet.load(tmp_path / "plain.npz", "inception-b").number is None


def test_bad_input_is_named(rows, tmp_path):
    g = frechet.gaussian(frechet.moments(rows))
    frechet.save(tmp_path / "s.npz", g, "inception-a")
    with pytest.raises(ValueError, match=r"s\.npz was made with inception-a, but .* uses inception-b"):
        frechet.load(tmp_path / "s.npz", "inception-b")
    np.savez(tmp_path / "n.npz", mu=g.mean * np.nan, sigma=g.covariance)
    with pytest.raises(ValueError, match=r"n\.npz holds numbers that are not finite"):
        frechet.load(tmp_path / "n.npz")
    with open(tmp_path / "y.npz", "wb") as file:
        np.save(file, g.mean)
    with pytest.raises(ValueError, match=r"y\.npz is not a readable npz file"):
        frechet.load(tmp_path / "y.npz")
    np.savez(tmp_path / "m.npz", mu=g.mean)
    with pytest.raises(ValueError, match=r"m\.npz has no 'sigma' \(found \['mu'\]\)"):
        frechet.load(tmp_path / "m.npz")
    np.savez(tmp_path / "w.npz", mu=g.mean, sigma=g.covariance[:3])
    with pytest.raises(ValueError, match=r"w\.npz has mu of shape \(40,\) and sigma of shape \(3, 40\)"):
        frechet.load(tmp_path / "w.npz")
    (tmp_path / "d.npz").write_bytes(b"PK broken")
    with pytest.raises(ValueError, match=r"d\.npz is not a readable npz file"):
        frechet.load(tmp_path / "d.npz")
    with pytest.raises(ValueError, match="40 and 39 features"):
        frechet.frechet_distance(g, frechet.gaussian(frechet.moments(rows[:, 1:])))
    with pytest.raises(ValueError, match="at least 2 images, found 1"):
        frechet.gaussian(frechet.moments(rows[:1]))
    with pytest.raises(ValueError, match="No images were given"):
        frechet.Stream().moments()
    with pytest.raises(ValueError, match="NaN or infinity"):
        frechet.moments(rows * np.float32("nan"))
