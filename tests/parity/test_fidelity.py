"""End to end against torch-fidelity and pytorch-fid: the same images, the same random weights, every metric."""

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


def peer(a: np.ndarray, b: np.ndarray, checkpoint: Path, layer: str, **options) -> dict[str, float]:
    import torch_fidelity

    return torch_fidelity.calculate_metrics(
        input1=Images(a),
        input2=Images(b),
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,  # no worker processes
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(checkpoint),
        feature_layer_fid=layer,
        feature_layer_kid=layer,
        feature_layer_prc=layer,
        fid=True,
        kid=True,
        prc=True,
        **options,
    )


@pytest.fixture(scope="module")
def inception(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> extractors.Extractor:
    output = tmp_path_factory.mktemp("converted") / "random.safetensors"
    return extractors.inception(weights.convert(checkpoint, output))


def test_all_metrics_at_2048_match_torch_fidelity(data_dir, checkpoint, inception, monkeypatch, tmp_path):
    monkeypatch.setenv("LOTTO_JAX_CACHE", str(tmp_path))
    real = images(data_dir, "cifar10", 160)
    generated = images(data_dir, "cifar10", 320)[160:] // 2 + 40  # washed out, so that the sets differ
    expected = peer(generated, real, checkpoint, "2048", isc=True, kid_subset_size=100)

    layers = ("2048", "logits_unbiased")
    a = extractors.features(generated, inception, layers)
    b = extractors.features(real, inception, ("2048",))
    sides = [frechet.gaussian(frechet.moments(x["2048"])) for x in (a, b)]
    score = metrics.inception_score(a["logits_unbiased"])
    kid = metrics.kernel_distance(a["2048"], b["2048"], subset_size=100)
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
    print(found, expected)
    assert 0.02 < precision < 0.98 and 0.02 < recall < 0.98, "the sets do not test precision and recall"
    for name, value in found.items():
        assert value == pytest.approx(expected[name], rel=1e-3), name


def test_defaults_on_mnist_match_torch_fidelity(data_dir, checkpoint, inception, monkeypatch, tmp_path):
    """FID from images and KID with its default subsets of 1,000, at a layer that costs little."""
    monkeypatch.setenv("LOTTO_JAX_CACHE", str(tmp_path))
    both = images(data_dir, "mnist", 2100)
    generated, real = 255 - both[:1050], 255 - both[1050:] // 4 * 3
    expected = peer(generated, real, checkpoint, "64")
    shallow = inception._replace(layer="64")
    kid = metrics.kernel_distance(*(extractors.features(x, shallow)["64"] for x in (generated, real)))
    found = {
        "frechet_inception_distance": metrics.fid(generated, real, shallow),
        "kernel_inception_distance_mean": kid.mean,
        "kernel_inception_distance_std": kid.std,
    }
    print(found, expected)
    for name, value in found.items():
        assert value == pytest.approx(expected[name], rel=1e-3), name


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
