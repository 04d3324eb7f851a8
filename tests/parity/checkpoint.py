"""A checkpoint of the FID Inception network with random weights (the published one is not ours to ship)."""

from pathlib import Path

import numpy as np
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from lotto_jax.metrics import weights

LAYERS = ["64", "192", "768", "2048", "logits_unbiased", "logits"]


def extractor(path: Path, layers: list[str] = LAYERS) -> FeatureExtractorInceptionV3:
    return FeatureExtractorInceptionV3("inception-v3-compat", layers, feature_extractor_weights_path=str(path))


def write(path: Path, images: np.ndarray, seed: int = 0) -> Path:
    """Save torch-fidelity's extractor with random kernels and the batch statistics of `images` (uint8, NHWC).

    With these statistics activations keep unit variance through all layers, so that features tell images
    apart.
    """
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in weights.expected_shapes().items():
        if len(shape) > 1:
            value = rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[1:])), shape)
        elif name.endswith("bn.weight"):
            value = rng.uniform(0.5, 1.5, shape)
        elif name.endswith("running_var"):
            value = np.ones(shape)
        else:
            value = rng.normal(0.0, 0.2, shape)
        state[name] = torch.from_numpy(value.astype(np.float32))
    torch.save(state, path)
    network = extractor(path)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()
    with torch.no_grad():
        network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    network.eval()
    torch.save(network.state_dict(), path)
    return path
