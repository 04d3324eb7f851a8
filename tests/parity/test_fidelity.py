"""End to end against torch-fidelity and pytorch-fid: same images, same random weights, every metric."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="scripts/test.sh --parity installs it")

from lotto_jax import metrics  # noqa: E402
from lotto_jax.metrics import extractors, frechet, weights  # noqa: E402
from tests.parity.conftest import images  # noqa: E402


class Images(torch.utils.data.Dataset):
    def __init__(self, array: np.ndarray):
        self.array = torch.from_numpy(array.transpose(0, 3, 1, 2).copy())

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.array[index]


@pytest.fixture(scope="module")
def inception(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> extractors.Extractor:
    output = tmp_path_factory.mktemp("converted") / "random.safetensors"
    return extractors.inception(weights.convert(checkpoint, output))


def test_all_metrics_match_torch_fidelity(data_dir, checkpoint, inception, monkeypatch, tmp_path):
    import torch_fidelity

    monkeypatch.setenv("LOTTO_JAX_CACHE", str(tmp_path))
    both = images(data_dir, "cifar10", 128)
    generated, real = both[:64] // 2 + 60, both[64:]  # washed out, so that the sets differ
    expected = torch_fidelity.calculate_metrics(
        input1=Images(generated),
        input2=Images(real),
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,  # no worker processes
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(checkpoint),
        kid_subset_size=40,
        fid=True,
        isc=True,
        kid=True,
        prc=True,
    )

    a = extractors.features(generated, inception, ("2048", "logits_unbiased"))
    b = extractors.features(real, inception)
    sides = [frechet.gaussian(frechet.moments(x["2048"])) for x in (a, b)]
    score = metrics.inception_score(a["logits_unbiased"])
    kid = metrics.kernel_distance(a["2048"], b["2048"], subset_size=40)
    precision, recall = metrics.precision_recall(a["2048"], b["2048"])
    found = {
        "frechet_inception_distance": metrics.frechet_distance(*sides),
        "inception_score_mean": score.mean,
        "inception_score_std": score.std,
        "kernel_inception_distance_mean": kid.mean,
        "kernel_inception_distance_std": kid.std,
        "precision": precision,
        "recall": recall,
    }
    assert 0.02 < precision < 0.98 and 0.02 < recall < 0.98, "the sets do not test precision and recall"
    for name, value in found.items():
        assert value == pytest.approx(expected[name], rel=1e-3), name


def test_kid_of_a_thousand_images_a_subset_matches_torch_fidelity_end_to_end(
    data_dir, checkpoint, inception, monkeypatch, tmp_path
):
    """On the first features, which take a tenth of the time of the last; the draws and the sums are the same."""
    import torch_fidelity

    monkeypatch.setenv("LOTTO_JAX_CACHE", str(tmp_path))
    both = images(data_dir, "cifar10", 2100)
    generated, real = both[:1050] // 2 + 60, both[1050:]
    expected = torch_fidelity.calculate_metrics(
        input1=Images(generated),
        input2=Images(real),
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(checkpoint),
        feature_layer_kid="64",
        kid=True,
    )
    a, b = (extractors.features(x, inception, ("64",))["64"] for x in (generated, real))
    found = metrics.kernel_distance(a, b)
    assert found.mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-3)
    assert found.std == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-3)


def test_defaults_match_torch_fidelity_on_the_same_features():
    """1,000 images a subset and 10 splits of 1,103 images, which those do not divide."""
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    rng = np.random.default_rng(0)
    generated = np.maximum(rng.normal(0.1, 1.0, (1103, 48)), 0).astype(np.float32)
    real = np.maximum(rng.normal(0.0, 1.1, (1050, 48)), 0).astype(np.float32)
    a, b = torch.from_numpy(generated), torch.from_numpy(real)
    score = isc_features_to_metric(a * 3)
    kid = kid_features_to_metric(a, b, verbose=False)
    manifold = prc_features_to_metric(a, b, verbose=False)
    # The peer sums a million float32 kernel values; its KID is only as good as that.
    found = metrics.kernel_distance(generated, real)
    assert found == pytest.approx(
        (kid["kernel_inception_distance_mean"], kid["kernel_inception_distance_std"]), rel=1e-3
    )
    assert metrics.inception_score(generated * 3) == pytest.approx(
        (score["inception_score_mean"], score["inception_score_std"]), rel=1e-9
    )
    assert metrics.precision_recall(generated, real) == pytest.approx(
        (manifold["precision"], manifold["recall"]), rel=1e-3
    )


@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")
def test_features_and_distance_match_pytorch_fid_at_its_resize(data_dir, checkpoint, monkeypatch, tmp_path):
    from pytorch_fid import fid_score
    from pytorch_fid import inception as peer

    monkeypatch.setenv("LOTTO_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(peer, "load_state_dict_from_url", lambda *_, **__: torch.load(checkpoint, weights_only=True))
    network = peer.InceptionV3([peer.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()
    ours = extractors.inception(weights.convert(checkpoint, tmp_path / "random.safetensors"), "pytorch")
    both = images(data_dir, "cifar10", 64)
    with torch.no_grad():
        theirs = network(torch.from_numpy(both.transpose(0, 3, 1, 2).copy()).float() / 255)[0][:, :, 0, 0].numpy()
    found = extractors.features(both, ours)["2048"]
    np.testing.assert_allclose(found, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())
    halves = [theirs[:32].astype(np.float64), theirs[32:].astype(np.float64)]
    moments = [value for half in halves for value in (half.mean(0), np.cov(half, rowvar=False))]
    expected = fid_score.calculate_frechet_distance(*moments)
    with pytest.warns(UserWarning, match="fewer than the 2048 features"):
        assert metrics.fid(both[:32], both[32:], ours) == pytest.approx(expected, rel=1e-3)


@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")
def test_distance_matches_pytorch_fid_on_the_same_statistics(tmp_path):
    from pytorch_fid.fid_score import calculate_frechet_distance

    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(96, 96))
    sides = [
        frechet.gaussian(frechet.moments(rng.normal(size=(n, 96)) @ mixing + shift))
        for n, shift in ((400, 0.0), (300, 0.2))
    ]
    # pytorch-fid's file, read here; and ours, read as pytorch-fid does.
    np.savez_compressed(tmp_path / "theirs.npz", mu=sides[0].mean, sigma=sides[0].covariance)
    frechet.save(tmp_path / "ours.npz", sides[1], "inception-test")
    theirs = frechet.load(tmp_path / "theirs.npz")
    with np.load(tmp_path / "ours.npz") as file:
        ours = file["mu"][:], file["sigma"][:]
    expected = calculate_frechet_distance(sides[0].mean, sides[0].covariance, *ours)
    assert metrics.frechet_distance(theirs, sides[1]) == pytest.approx(expected, rel=1e-9)
