"""Real images and a random Inception checkpoint, shared by the comparisons of metrics."""

from pathlib import Path

import numpy as np
import pytest


def images(data_dir: str, name: str, count: int) -> np.ndarray:
    """The first `count` test images, uint8 [count, height, width, 3]; grayscale is replicated."""
    import tensorflow_datasets as tfds

    source = tfds.builder(name, data_dir=data_dir).as_data_source(split="test")
    stacked = np.stack([source[i]["image"] for i in range(count)])
    return np.repeat(stacked, 3, axis=-1) if stacked.shape[-1] == 1 else stacked


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights as a PyTorch file, calibrated on noise and gradients of 32x32."""
    pytest.importorskip("torch_fidelity", reason="scripts/test.sh --parity installs it")
    from tests.parity import checkpoint

    return checkpoint.write(tmp_path_factory.mktemp("inception") / "random.pth", textures())


def textures(count: int = 24) -> np.ndarray:
    """Smooth random color images, uint8 [count, 32, 32, 3]: what batch statistics are calibrated on."""
    rng = np.random.default_rng(1)
    coarse = rng.uniform(0, 255, (count, 4, 4, 3))
    smooth = np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)
    return np.clip(smooth + rng.normal(0, 25, smooth.shape), 0, 255).astype(np.uint8)
