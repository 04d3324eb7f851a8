"""DINOv2 and CLIP against `transformers`, from a checkpoint as it writes them, with the same random weights."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="scripts/test.sh --parity installs it")
transformers = pytest.importorskip("transformers", reason="scripts/test.sh --parity installs it")

from lotto_jax.metrics import vit, vit_weights, weights  # noqa: E402

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
DINOV2 = vit.DINOV2._replace(size=56, width=24, depth=3, heads=2, hidden=96, trained=7)
CLIP = vit.CLIP._replace(size=64, width=24, depth=3, heads=2, hidden=40, trained=4, projection=10)


def dinov2():
    config = transformers.Dinov2Config(**SIZES, mlp_ratio=4, image_size=98, patch_size=14, layerscale_value=0.7)
    return DINOV2, transformers.Dinov2Model(config), lambda output: output.pooler_output


def clip():
    config = transformers.CLIPVisionConfig(
        **SIZES, intermediate_size=40, image_size=64, patch_size=16, projection_dim=10, hidden_act="quick_gelu"
    )
    return CLIP, transformers.CLIPVisionModelWithProjection(config), lambda output: output.image_embeds


@pytest.mark.parametrize("make", [dinov2, clip])
def test_features_are_those_of_transformers(make, tmp_path):
    torch.manual_seed(0)
    network, twin, feature = make()
    with torch.no_grad():
        for parameter in twin.parameters():  # norms and scales of 1 would hide what is left out
            parameter.add_(0.2 * torch.randn_like(parameter))
    twin.eval().save_pretrained(tmp_path)
    tensors = weights.read(tmp_path / "model.safetensors")
    assert vit_weights.recognized(tensors).name == network.name
    images = np.random.default_rng(0).normal(size=(4, network.size, network.size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = feature(twin(pixel_values=torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))).numpy()
    vit_weights._check(tmp_path / "model.safetensors", network, tensors)
    params = vit_weights.params_of(network, tensors)
    found = jax.jit(vit.features, static_argnums=0)(network, params, images)
    assert np.std(expected, axis=0).mean() > 0.01  # images are told apart
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_published_sizes_are_those_of_the_networks():
    """Names and shapes of the base models, made without numbers."""
    with torch.device("meta"):
        twins = {
            "dinov2": transformers.Dinov2Model(transformers.Dinov2Config(image_size=518, patch_size=14)),
            "clip": transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(patch_size=16)),
        }
    for name, twin in twins.items():
        count = sum(np.prod(shape) for shape in vit_weights.expected_shapes(vit.NETWORKS[name]).values())
        mask_token = 768 if name == "dinov2" else 0
        assert count == sum(parameter.numel() for parameter in twin.parameters()) - mask_token
