"""Groups, sizes and outputs of torchvision's networks and a UNet, pruned by this library and by torch-pruning."""

import functools
import warnings

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
pytest.importorskip("torch_pruning")

from scripts.benchmarks import structured_torch, torch_unet, vision_networks  # noqa: E402  (once its packages are there)

models = torchvision.models


def resnet():
    return models.resnet.ResNet(models.resnet.Bottleneck, [2, 1, 1, 1], num_classes=10, width_per_group=16)


def mobilenet():
    setting = [[1, 8, 1, 1], [6, 12, 2, 2], [6, 16, 1, 2]]
    return models.mobilenetv2.MobileNetV2(10, width_mult=0.5, inverted_residual_setting=setting, round_nearest=4)


def convnext():
    settings = [models.convnext.CNBlockConfig(16, 24, 2), models.convnext.CNBlockConfig(24, None, 1)]
    return models.convnext.ConvNeXt(settings, num_classes=10)


# The same architectures, shallower and narrower: module, function and whether both find the same groups.
SMALL = {
    "resnet50": (resnet, vision_networks.resnet50, True),
    "densenet121": (
        lambda: models.densenet.DenseNet(8, (2, 3), 16, bn_size=2, num_classes=10),
        vision_networks.densenet121,
        True,
    ),
    "mobilenet_v2": (
        mobilenet,
        functools.partial(vision_networks.mobilenet_v2, stages=((1, 1), (2, 2), (1, 2))),
        True,
    ),
    "convnext_tiny": (convnext, vision_networks.convnext_tiny, True),
    "vit_b_16": (
        lambda: models.vision_transformer.VisionTransformer(32, 8, 2, 4, 32, 48, num_classes=10),
        functools.partial(vision_networks.vit_b_16, heads=4),
        False,
    ),
    "unet": (
        lambda: torch_unet.UNet((8, 16), (1,), blocks=1, groups=4, head_dim=4),
        functools.partial(vision_networks.unet, groups=4, head_dim=4),
        False,
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_both_remove_the_same_and_the_outputs_stay(name):
    torch.manual_seed(0)
    make, fn, same = SMALL[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, about how its weights start
        model = structured_torch.randomized(make())
    x = torch.randn(2, 3, 32, 32)
    inputs = (x, torch.tensor([3.0, 700.0])) if name == "unet" else (x,)
    with torch.no_grad():
        expected = model(*inputs).numpy()
    got = jax.jit(fn)(structured_torch.state(model), *(x.numpy() for x in inputs))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())

    found = structured_torch.compare(fn, model, inputs, share=0.3)
    assert found["error"] < 1e-5 and found["same_error"] < 1e-5 and found["torch_error_with_counts"] < 1e-5
    # torch-pruning lets the layer norms of ConvNeXt divide by fewer channels, which is another function.
    assert (found["torch_error"] < 1e-5) == (name != "convnext_tiny")
    assert found["other_shapes"] == 0 and found["same_params"] == found["torch_params"] < found["dense_params"]
    assert found["params"] <= found["same_params"] and found["torch_axes_only"] == 0
    if same:
        assert found["groups"] == found["torch_groups"] == found["same_groups"]
        assert found["channels"] == found["torch_channels"]
        assert found["dense_flops"] == found["torch_dense_flops"]
        assert found["same_flops"] == found["torch_flops"] < found["dense_flops"]
    if name == "vit_b_16":
        # Ours: the channels between the blocks, and in each of two blocks 4 heads and 48 hidden units. torch-pruning
        # has no heads of an nn.MultiheadAttention, and ties their entries to the channels between the blocks.
        assert found["groups"] == 5 and found["channels"] == 32 + 2 * (4 + 48)
        assert found["torch_groups"] == 3 and found["same_groups"] == 2
    if name == "unet":
        assert found["same_groups"] == found["torch_groups"]
