"""Images a second of torch-fidelity's Inception extractor with random weights, as JSON; for `metrics.py`."""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from lotto_jax.metrics import weights
from scripts.benchmarks.common import seconds


def main() -> None:
    """Measure a batch of as many 32x32 images as the argument says."""
    count = int(sys.argv[1])
    torch.manual_seed(0)
    state = {}
    for name, shape in weights.expected_shapes().items():
        fan_in = max(1, int(torch.Size(shape[1:]).numel()))
        state[name] = torch.ones(shape) if len(shape) == 1 else torch.randn(shape) * (2.0 / fan_in) ** 0.5
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "random.pth")
        torch.save(state, path)
        network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=path)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        duration = seconds(lambda: network(images))
    print(json.dumps({"images_per_second": count / duration}))


main()
