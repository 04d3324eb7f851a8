"""Networks that people prune, as plain JAX functions of PyTorch's state dicts, in inference mode.

Each function takes `params`, a flat dict with the names, shapes and layouts of the state dict of the PyTorch module,
and images `[batch, 3, height, width]`. Depths and widths are read off `params`, so a shallower or narrower network of
the same architecture runs too.
"""

import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Params = dict[str, Array]
Images = Float[Array, "batch channels height width"]


def by_channel(x: Float[Array, "channels"]) -> Float[Array, "1 channels 1 1"]:
    """A number for each channel of images."""
    return lax.expand_dims(x, (0, 2, 3))


def conv(params: Params, name: str, x: Images, stride: int = 1, padding: int = 0, groups: int = 1) -> Images:
    """`torch.nn.Conv2d`; the bias is optional."""
    around = [(padding, padding)] * 2
    numbers = ("NCHW", "OIHW", "NCHW")
    y = lax.conv_general_dilated(
        x, params[f"{name}.weight"], (stride, stride), around, dimension_numbers=numbers, feature_group_count=groups
    )
    return y + by_channel(params[f"{name}.bias"]) if f"{name}.bias" in params else y


def linear(params: Params, name: str, x: Array) -> Array:
    """`torch.nn.Linear` with a bias."""
    y = x @ params[f"{name}.weight"].T
    return y + jnp.broadcast_to(params[f"{name}.bias"], y.shape)


def batch_norm(params: Params, name: str, x: Images) -> Images:
    """`torch.nn.BatchNorm2d` in inference mode."""
    weight, bias, mean, variance = (
        by_channel(params[f"{name}.{field}"]) for field in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) * lax.rsqrt(variance + 1e-5) * weight + bias


def layer_norm(params: Params, name: str, x: Array, axis: int = -1) -> Array:
    """`torch.nn.LayerNorm(eps=1e-6)` over one axis."""
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    y = x - x.mean(axis, keepdims=True)
    y = y * lax.rsqrt(jnp.square(y).mean(axis, keepdims=True) + 1e-6)
    return y * params[f"{name}.weight"].reshape(shape) + params[f"{name}.bias"].reshape(shape)


def group_norm(params: Params, name: str, x: Images, groups: int) -> Images:
    """`torch.nn.GroupNorm(eps=1e-6)`."""
    y = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    y = y - y.mean((2, 3, 4), keepdims=True)
    y = (y * lax.rsqrt(jnp.square(y).mean((2, 3, 4), keepdims=True) + 1e-6)).reshape(x.shape)
    return y * by_channel(params[f"{name}.weight"]) + by_channel(params[f"{name}.bias"])


def attention(q: Array, k: Array, v: Array, heads: int) -> Float[Array, "batch tokens channels"]:
    """Softmax attention of `[batch, tokens, channels]` by heads."""
    q, k, v = (x.reshape(*x.shape[:2], heads, x.shape[2] // heads) for x in (q, k, v))
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1]))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(*q.shape[:2], -1)


def max_pool(x: Images, window: int, stride: int, padding: int) -> Images:
    """`torch.nn.MaxPool2d`."""
    around = [(0, 0), (0, 0), (padding, padding), (padding, padding)]
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, window, window), (1, 1, stride, stride), around)


def average_pool(x: Images) -> Images:
    """`torch.nn.AvgPool2d(2)`."""
    return lax.reduce_window(x, 0.0, lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID") / 4


def numbered(params: Params, name: str, first: int = 0) -> Iterator[str]:
    """The names `name` with `{}` filled by 0, 1, ... that params have something under."""
    i = first
    while any(leaf.startswith(f"{name.format(i)}.") for leaf in params):
        yield name.format(i)
        i += 1


def resnet50(params: Params, x: Images) -> Float[Array, "batch classes"]:
    """`torchvision.models.resnet50`, or any `ResNet` of `Bottleneck`s."""
    relu = jax.nn.relu
    x = max_pool(relu(batch_norm(params, "bn1", conv(params, "conv1", x, 2, 3))), 3, 2, 1)
    for stage in numbered(params, "layer{}", 1):
        for i, block in enumerate(numbered(params, f"{stage}.{{}}")):
            stride = 2 if i == 0 and stage != "layer1" else 1
            y = relu(batch_norm(params, f"{block}.bn1", conv(params, f"{block}.conv1", x)))
            y = relu(batch_norm(params, f"{block}.bn2", conv(params, f"{block}.conv2", y, stride, 1)))
            y = batch_norm(params, f"{block}.bn3", conv(params, f"{block}.conv3", y))
            if i == 0:
                x = batch_norm(params, f"{block}.downsample.1", conv(params, f"{block}.downsample.0", x, stride))
            x = relu(x + y)
    return linear(params, "fc", x.mean((2, 3)))


def densenet121(params: Params, x: Images) -> Float[Array, "batch classes"]:
    """`torchvision.models.densenet121`, or any other `DenseNet`."""

    def norm_conv(norm: str, name: str, x: Images, padding: int = 0) -> Images:
        return conv(params, name, jax.nn.relu(batch_norm(params, norm, x)), 1, padding)

    x = jax.nn.relu(batch_norm(params, "features.norm0", conv(params, "features.conv0", x, 2, 3)))
    x = max_pool(x, 3, 2, 1)
    for i, block in enumerate(numbered(params, "features.denseblock{}", 1), 1):
        for layer in numbered(params, f"{block}.denselayer{{}}", 1):
            y = norm_conv(f"{layer}.norm1", f"{layer}.conv1", x)
            x = jnp.concatenate([x, norm_conv(f"{layer}.norm2", f"{layer}.conv2", y, 1)], 1)
        transition = f"features.transition{i}"
        if f"{transition}.conv.weight" in params:
            x = average_pool(norm_conv(f"{transition}.norm", f"{transition}.conv", x))
    x = jax.nn.relu(batch_norm(params, "features.norm5", x))
    return linear(params, "classifier", x.mean((2, 3)))


# (blocks, stride of the first of them) of the stages of MobileNetV2.
STAGES = ((1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1))


def mobilenet_v2(params: Params, x: Images, stages: tuple[tuple[int, int], ...] = STAGES) -> Array:
    """`torchvision.models.mobilenet_v2`.

    Args:
      params: the state dict.
      x: images.
      stages: `(blocks, stride)`; the width changes in the first block of each.
    """

    def conv_norm(name: str, norm: str, x: Images, stride: int = 1, depthwise: bool = False) -> Images:
        window = params[f"{name}.weight"].shape[2]
        groups = x.shape[1] if depthwise else 1
        return batch_norm(params, norm, conv(params, name, x, stride, window // 2, groups))

    x = jax.nn.relu6(conv_norm("features.0.0", "features.0.1", x, 2))
    index = 1
    for blocks, stride in stages:
        for i in range(blocks):
            # An expansion, but for the first block of all, a depthwise convolution, a projection and its norm.
            *layers, project, norm = numbered(params, f"features.{index}.conv.{{}}")
            y = x
            for layer in layers:
                depthwise = layer == layers[-1]
                step = stride if depthwise and i == 0 else 1
                y = jax.nn.relu6(conv_norm(f"{layer}.0", f"{layer}.1", y, step, depthwise))
            y = conv_norm(project, norm, y)
            x = x + y if i > 0 else y
            index += 1
    x = jax.nn.relu6(conv_norm(f"features.{index}.0", f"features.{index}.1", x))
    return linear(params, "classifier.1", x.mean((2, 3)))


def convnext_tiny(params: Params, x: Images) -> Float[Array, "batch classes"]:
    """`torchvision.models.convnext_tiny`, or any other `ConvNeXt`."""
    for stage in numbered(params, "features.{}"):
        if stage == "features.0":
            x = layer_norm(params, f"{stage}.1", conv(params, f"{stage}.0", x, 4), axis=1)
        elif f"{stage}.1.weight" in params:
            x = conv(params, f"{stage}.1", layer_norm(params, f"{stage}.0", x, axis=1), 2)
        else:
            for block in numbered(params, f"{stage}.{{}}"):
                y = conv(params, f"{block}.block.0", x, 1, 3, x.shape[1]).transpose(0, 2, 3, 1)
                y = linear(params, f"{block}.block.3", layer_norm(params, f"{block}.block.2", y))
                y = linear(params, f"{block}.block.5", jax.nn.gelu(y, approximate=False))
                x = x + params[f"{block}.layer_scale"][None] * y.transpose(0, 3, 1, 2)
    x = layer_norm(params, "classifier.0", x.mean((2, 3)))
    return linear(params, "classifier.2", x)


def vit_b_16(params: Params, x: Images, heads: int = 12) -> Float[Array, "batch classes"]:
    """`torchvision.models.vit_b_16`, or any other `VisionTransformer`."""
    x = conv(params, "conv_proj", x, params["conv_proj.weight"].shape[2])
    x = x.reshape(*x.shape[:2], -1).transpose(0, 2, 1)
    token = jnp.broadcast_to(params["class_token"], (x.shape[0], 1, x.shape[2]))
    x = jnp.concatenate([token, x], 1) + params["encoder.pos_embedding"]
    for layer in numbered(params, "encoder.layers.encoder_layer_{}"):
        own = f"{layer}.self_attention"
        y = layer_norm(params, f"{layer}.ln_1", x)
        qkv = y @ params[f"{own}.in_proj_weight"].T
        qkv = qkv + jnp.broadcast_to(params[f"{own}.in_proj_bias"], qkv.shape)
        q, k, v = jnp.split(qkv, 3, -1)
        x = x + linear(params, f"{own}.out_proj", attention(q, k, v, heads))
        y = linear(params, f"{layer}.mlp.0", layer_norm(params, f"{layer}.ln_2", x))
        x = x + linear(params, f"{layer}.mlp.3", jax.nn.gelu(y, approximate=False))
    return linear(params, "heads.head", layer_norm(params, "encoder.ln", x)[:, 0])


def time_embedding(time: Float[Array, "batch"], size: int) -> Float[Array, "batch size"]:
    """Sines, then cosines, of the time at frequencies from 1 down to 1/10000."""
    half = size // 2
    angles = time[:, None] * jnp.exp(-math.log(10000) / half * jnp.arange(half))[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def unet(params: Params, x: Images, time: Float[Array, "batch"], groups: int = 32, head_dim: int = 32) -> Images:
    """`scripts.benchmarks.torch_unet.UNet`, a denoising network as diffusers builds them.

    Args:
      params: the state dict.
      x: noisy images.
      time: how noisy.
      groups: of every group norm.
      head_dim: channels of an attention head.
    """
    silu = jax.nn.silu
    time = time_embedding(time, params["time_embedding.linear_1.weight"].shape[1])
    time = silu(linear(params, "time_embedding.linear_2", silu(linear(params, "time_embedding.linear_1", time))))

    def resnet(name: str, x: Images) -> Images:
        y = conv(params, f"{name}.conv1", silu(group_norm(params, f"{name}.norm1", x, groups)), 1, 1)
        y = y + linear(params, f"{name}.time_emb_proj", time)[:, :, None, None]
        y = conv(params, f"{name}.conv2", silu(group_norm(params, f"{name}.norm2", y, groups)), 1, 1)
        return y + (conv(params, f"{name}.conv_shortcut", x) if f"{name}.conv_shortcut.weight" in params else x)

    def attend(name: str, x: Images) -> Images:
        if f"{name}.to_q.weight" not in params:
            return x
        y = group_norm(params, f"{name}.group_norm", x, groups).reshape(*x.shape[:2], -1).transpose(0, 2, 1)
        q, k, v = (linear(params, f"{name}.to_{part}", y) for part in "qkv")
        y = linear(params, f"{name}.to_out.0", attention(q, k, v, q.shape[-1] // head_dim))
        return x + y.transpose(0, 2, 1).reshape(x.shape)

    x = conv(params, "conv_in", x, 1, 1)
    skips = [x]
    for block in numbered(params, "down_blocks.{}"):
        for i, name in enumerate(numbered(params, f"{block}.resnets.{{}}")):
            x = attend(f"{block}.attentions.{i}", resnet(name, x))
            skips.append(x)
        if f"{block}.downsamplers.0.conv.weight" in params:
            x = conv(params, f"{block}.downsamplers.0.conv", x, 2, 1)
            skips.append(x)
    x = resnet("mid_block.resnets.0", x)
    x = resnet("mid_block.resnets.1", attend("mid_block.attentions.0", x))
    for block in numbered(params, "up_blocks.{}"):
        for i, name in enumerate(numbered(params, f"{block}.resnets.{{}}")):
            x = attend(f"{block}.attentions.{i}", resnet(name, jnp.concatenate([x, skips.pop()], 1)))
        if f"{block}.upsamplers.0.conv.weight" in params:
            x = conv(params, f"{block}.upsamplers.0.conv", jnp.repeat(jnp.repeat(x, 2, 2), 2, 3), 1, 1)
    return conv(params, "conv_out", silu(group_norm(params, "conv_norm_out", x, groups)), 1, 1)


NETWORKS: dict[str, Callable[..., Array]] = {
    "resnet50": resnet50,
    "densenet121": densenet121,
    "mobilenet_v2": mobilenet_v2,
    "convnext_tiny": convnext_tiny,
    "vit_b_16": vit_b_16,
    "unet": unet,
}
