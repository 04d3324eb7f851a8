"""Every feature layer against torch-fidelity on real images, with the same converted random weights."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="scripts/test.sh --parity installs it")

from lotto_jax.metrics import inception, resize, weights  # noqa: E402
from tests.parity import checkpoint as torch_checkpoint  # noqa: E402
from tests.parity.conftest import images  # noqa: E402


@pytest.fixture(scope="module")
def params(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory):
    output = tmp_path_factory.mktemp("converted") / "random.safetensors"
    return weights.load(weights.convert(checkpoint, output))[0]


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_every_layer_matches_torch_fidelity(name, data_dir, checkpoint, params):
    batch = images(data_dir, name, 8)
    network = torch_checkpoint.extractor(checkpoint)
    with torch.no_grad():
        expected = network(torch.from_numpy(batch.transpose(0, 3, 1, 2).copy()))
    found = jax.jit(inception.InceptionV3().apply)({"params": params}, resize.tf1(jnp.asarray(batch, jnp.float32)))
    for layer, value in zip(torch_checkpoint.LAYERS, expected, strict=True):
        value = value.numpy()
        spread = np.mean(np.std(value, axis=0)) / np.mean(np.abs(value))
        assert spread > 0.02, f"the random weights give degenerate features at {layer}"
        scale = np.mean(np.abs(value))
        np.testing.assert_allclose(found[layer], value, rtol=1e-3, atol=1e-4 * scale, err_msg=layer)


def test_old_stream_format_reads_the_same(checkpoint, tmp_path):
    state = torch.load(checkpoint)
    torch.save(state, tmp_path / "stream.pth", _use_new_zipfile_serialization=False)
    for path in (checkpoint, tmp_path / "stream.pth"):
        tensors = weights.read_pytorch(path)
        assert tensors.keys() == state.keys()
        assert all(np.array_equal(tensors[n], state[n].numpy()) for n in state)


def test_resizes_match_pytorch_and_torch_fidelity():
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    rng = np.random.default_rng(0)
    for height, width in ((32, 32), (28, 45), (320, 512)):
        batch = rng.integers(0, 256, (1, height, width, 3)).astype(np.float32)
        planes = torch.from_numpy(batch.transpose(0, 3, 1, 2).copy())
        tf1 = interpolate_bilinear_2d_like_tensorflow1x(planes, (299, 299), align_corners=False)
        half = torch.nn.functional.interpolate(planes / 255, (299, 299), mode="bilinear", align_corners=False)
        # One rounding of a value up to 255 is 1.5e-5; three are allowed, in units of 1/128.
        np.testing.assert_allclose(resize.tf1(batch), (tf1 - 128).numpy().transpose(0, 2, 3, 1) / 128, atol=4e-7)
        np.testing.assert_allclose(resize.pytorch(batch), (2 * half - 1).numpy().transpose(0, 2, 3, 1), atol=4e-6)
