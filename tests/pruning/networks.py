"""Small networks that compaction is tested on, ours in spirit and foreign ones; each a row of NETWORKS.

A row builds `Network(fn, variables, inputs, rebuild)`: `fn(variables, *inputs)` is the forward pass in inference mode,
and `rebuild(variables)` the forward function for variables of other widths (`fn` itself where it reads its widths off
the params).
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lotto_jax.models import autoencoder, classifier, compacted, dcgan, resnet_gan, vae


class Network(NamedTuple):
    fn: Callable
    variables: Any
    inputs: tuple
    rebuild: Callable[[Any], Callable]


def randomize(tree: Any, seed: int = 0) -> Any:
    """Every leaf random, those named `var` positive: nothing may hold because of a friendly start."""
    rng = np.random.default_rng(seed)

    def leaf(path, x):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        draw = rng.normal(size=x.shape) * 0.5
        if "'var'" in jax.tree_util.keystr(path) or ".var" in jax.tree_util.keystr(path):
            draw = 0.5 + np.abs(draw)
        elif x.ndim > 1:
            draw /= np.sqrt(np.prod(x.shape[:-1]) / 4)
        return jnp.asarray(draw, x.dtype)

    return jax.tree_util.tree_map_with_path(leaf, tree)


class Module(nn.Module):
    """Layers by name, so that `widths` can give any of them the width that compaction left it."""

    widths: Mapping[str, int] | None = None

    def width(self, name: str, default: int) -> int:
        return (self.widths or {}).get(name, default)

    def conv(self, x, name, features, kernel=3, strides=1, **kwargs):
        window, stride, padding = (kernel, kernel), (strides, strides), (kernel - 1) // 2
        features = self.width(name, features)
        return nn.Conv(features, window, stride, padding, name=name, use_bias=False, **kwargs)(x)

    def up(self, x, name, features):
        return nn.ConvTranspose(self.width(name, features), (4, 4), (2, 2), name=name)(x)

    def norm(self, x, name):
        return nn.BatchNorm(use_running_average=True, name=name)(x)

    def unflatten(self, z, name, features):
        width = self.width(name, 16 * features)
        return nn.Dense(width, name=name)(z).reshape(-1, 4, 4, width // 16)


class Generator(Module):
    @nn.compact
    def __call__(self, z):
        x = nn.relu(self.norm(self.unflatten(z, "project", 24), "bn0"))
        x = nn.relu(self.norm(self.up(x, "up1", 16), "bn1"))
        x = nn.relu(self.norm(self.up(x, "up2", 10), "bn2"))
        return nn.tanh(self.conv(x, "image", 3))


class Discriminator(Module):
    @nn.compact
    def __call__(self, x):
        x = nn.leaky_relu(self.conv(x, "conv0", 6, 4, 2), 0.2)
        x = nn.leaky_relu(self.norm(self.conv(x, "conv1", 12, 4, 2), "bn1"), 0.2)
        x = nn.leaky_relu(self.norm(self.conv(x, "conv2", 20, 4, 2), "bn2"), 0.2)
        return nn.Dense(1, name="logit")(x.reshape(x.shape[0], -1))


class ResNet18(Module):
    """ResNet-18 as in torchvision (stem, four stages of two basic blocks, projection shortcuts), narrow."""

    stages: tuple[int, ...] = (8, 12, 16, 20)

    def block(self, x, name, features, strides):
        y = nn.relu(self.norm(self.conv(x, f"{name}_conv1", features, 3, strides), f"{name}_bn1"))
        y = self.norm(self.conv(y, f"{name}_conv2", features), f"{name}_bn2")
        if strides != 1 or x.shape[-1] != self.width(f"{name}_conv2", features):
            x = self.norm(self.conv(x, f"{name}_down", features, 1, strides), f"{name}_downbn")
        return nn.relu(x + y)

    @nn.compact
    def __call__(self, x):
        x = nn.relu(self.norm(self.conv(x, "stem", self.stages[0]), "stem_bn"))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for s, features in enumerate(self.stages):
            for b in range(2):
                x = self.block(x, f"s{s}b{b}", features, 2 if s > 0 and b == 0 else 1)
        return nn.Dense(10, name="head")(x.mean((1, 2)))


class VAE(Module):
    @nn.compact
    def __call__(self, x):
        for i, features in enumerate((8, 12, 16)):
            x = nn.relu(self.norm(self.conv(x, f"enc{i}", features, 4, 2), f"encbn{i}"))
        x = x.reshape(x.shape[0], -1)
        mean, logvar = nn.Dense(7, name="mean")(x), nn.Dense(7, name="logvar")(x)
        z = mean + jnp.exp(0.5 * logvar) * jnp.linspace(-1, 1, 7)[None]
        y = nn.relu(self.norm(self.unflatten(z, "project", 12), "decbn0"))
        for i, features in enumerate((8, 6)):
            y = nn.elu(self.norm(self.up(y, f"dec{i}", features), f"decbn{i + 1}"))
        return nn.sigmoid(self.up(y, "image", 3)), mean, logvar


class Separable(Module):
    """Depthwise (multiplier 2) and grouped convolutions, gated units from an equal split, average pooling."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(self.norm(self.conv(x, "expand", 8), "bn0"))
        groups = x.shape[-1]
        x = nn.Conv(2 * groups, (3, 3), feature_group_count=groups, name="depthwise")(x)
        x = nn.relu(self.norm(x, "bn1"))
        x = nn.relu6(self.norm(self.conv(x, "point", 12, 1), "bn2"))
        x = nn.relu(self.norm(self.conv(x, "grouped", 18, feature_group_count=2), "bn3"))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        value, gate = jnp.split(self.norm(self.conv(x, "glu", 12), "bn4"), 2, axis=-1)
        x = (value * nn.sigmoid(gate)).transpose(0, 3, 1, 2)
        return nn.Dense(4, name="head")(x.reshape(x.shape[0], -1))


def norm(x, train):
    return nn.BatchNorm(use_running_average=not train)(x)


class MobileNet(nn.Module):
    """Inverted residual blocks of MobileNetV2, its widths and group counts written in."""

    multiplier: int = 1  # output channels of the depthwise convolution for each of its inputs

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu6(norm(nn.Conv(8, (3, 3), 2, use_bias=False)(x), train))
        for strides in (1, 2):
            hidden = 4 * 8
            y = nn.relu6(norm(nn.Conv(hidden, (1, 1), use_bias=False)(x), train))
            depthwise = nn.Conv(
                self.multiplier * hidden, (3, 3), strides, feature_group_count=hidden, use_bias=strides == 1
            )
            y = nn.relu6(norm(depthwise(y), train))
            y = norm(nn.Conv(8, (1, 1), use_bias=False)(y), train)
            x = x + y if strides == 1 else y
        return nn.Dense(4)(x.mean((1, 2)))


class ResNeXt(nn.Module):
    """Residual blocks around a convolution of 2 groups, its widths written in."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(norm(nn.Conv(12, (3, 3), use_bias=False)(x), train))
        for _ in range(2):
            y = nn.relu(norm(nn.Conv(24, (1, 1), use_bias=False)(x), train))
            y = nn.relu(norm(nn.Conv(16, (3, 3), feature_group_count=2)(y), train))
            x = nn.relu(x + norm(nn.Conv(12, (1, 1), use_bias=False)(y), train))
        return nn.Dense(4)(x.mean((1, 2)))


class DenseNet(nn.Module):
    """A dense block with bottlenecks and a transition, its widths written in."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(8, (3, 3), use_bias=False)(x)
        for block in range(2):
            for _ in range(3):
                y = nn.Conv(12, (1, 1), use_bias=False)(nn.relu(norm(x, train)))
                y = nn.Conv(4, (3, 3), use_bias=False)(nn.relu(norm(y, train)))
                x = jnp.concatenate([x, y], axis=-1)
            x = nn.relu(norm(x, train))
            if block == 0:
                x = nn.avg_pool(nn.Conv(10, (1, 1), use_bias=False)(x), (2, 2), (2, 2))
        return nn.Dense(4)(x.mean((1, 2)))


class UNet(nn.Module):
    """Two levels with concatenated skips and transposed convolutions, its widths written in."""

    @nn.compact
    def __call__(self, x, train):
        skips = []
        for features in (6, 10):
            x = nn.relu(norm(nn.Conv(features, (3, 3))(x), train))
            skips.append(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.silu(norm(nn.Conv(14, (3, 3))(x), train))
        for features in (9, 8):
            x = nn.relu(norm(nn.ConvTranspose(features, (4, 4), (2, 2))(x), train))
            x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = nn.relu(norm(nn.Conv(features, (3, 3))(x), train))
        return nn.Conv(3, (1, 1))(x)


def linen(module: Module, *inputs: jax.Array) -> Network:
    def rebuild(variables):
        widths = {k: v["kernel"].shape[-1] for k, v in variables["params"].items() if "kernel" in v}
        return module.clone(widths=widths).apply

    variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return Network(module.apply, randomize(variables), inputs, rebuild)


def ours(module: nn.Module, *inputs: jax.Array) -> Network:
    """A network with its widths written in, run by `widths_of_params` where it is smaller, in inference mode."""

    def fn(variables, *inputs):
        return module.apply(variables, *inputs, train=False)

    def rebuild(variables):
        def small(variables, *inputs):
            with compacted.widths_of_params():
                return module.apply(variables, *inputs, train=False)

        return small

    variables = jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), *inputs)
    return Network(fn, randomize(variables), inputs, rebuild)


class NnxCNN(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.bn1 = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
        self.conv2 = nnx.Conv(8, 12, (3, 3), strides=2, rngs=rngs)
        self.bn2 = nnx.BatchNorm(12, use_running_average=True, rngs=rngs)
        self.head = nnx.Linear(4 * 4 * 12, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.gelu(self.bn1(self.conv1(x)))
        x = nnx.silu(self.bn2(self.conv2(x)))
        return self.head(x.reshape(x.shape[0], -1))


def nnx_cnn() -> Network:
    graph, state = nnx.split(NnxCNN(nnx.Rngs(0)))
    fn = lambda state, x: nnx.merge(graph, state)(x)  # noqa: E731
    return reads_shapes(fn, state, images(3, 16))


def conv(x, w, strides=1, spec=("NHWC", "HWIO", "NHWC")):
    return jax.lax.conv_general_dilated(x, w, (strides, strides), "SAME", dimension_numbers=spec)


def haiku_style() -> Network:
    """Params and state as Haiku keeps them: `{module: {w, b}}`, norms of shape [1, 1, 1, C]."""

    def norm(p, s, x):
        inverse = p["scale"] * jax.lax.rsqrt(s["var"] + 1e-5)
        return (x - s["mean"]) * inverse + p["offset"]

    def fn(variables, x):
        p, s = variables
        for i in (1, 2):
            x = conv(x, p[f"net/~/conv{i}"]["w"], 2) + p[f"net/~/conv{i}"]["b"].reshape(1, 1, 1, -1)
            x = jax.nn.relu(norm(p[f"net/~/bn{i}"], s[f"net/~/bn{i}"], x))
        x = x.reshape(x.shape[0], -1)
        return x @ p["net/~/linear"]["w"] + p["net/~/linear"]["b"][None]

    def ones(n):
        return jnp.zeros((1, 1, 1, n))

    p = {
        "net/~/conv1": {"w": jnp.zeros((3, 3, 3, 9)), "b": jnp.zeros(9)},
        "net/~/bn1": {"scale": ones(9), "offset": ones(9)},
        "net/~/conv2": {"w": jnp.zeros((3, 3, 9, 11)), "b": jnp.zeros(11)},
        "net/~/bn2": {"scale": ones(11), "offset": ones(11)},
        "net/~/linear": {"w": jnp.zeros((4 * 4 * 11, 3)), "b": jnp.zeros(3)},
    }
    s = {f"net/~/bn{i}": {"mean": ones(n), "var": ones(n)} for i, n in ((1, 9), (2, 11))}
    return reads_shapes(fn, (p, s), images(3, 16))


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Norm:
    weight: jax.Array
    bias: jax.Array
    mean: jax.Array
    var: jax.Array

    def __call__(self, x):
        scaled = (x - self.mean[:, None, None]) / jnp.sqrt(self.var + 1e-5)[:, None, None]
        return scaled * self.weight[:, None, None] + self.bias[:, None, None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Net:
    """A callable pytree as in Equinox: channels first, one example, the batch by vmap."""

    kernels: list[jax.Array]
    norms: list[Norm]
    head: jax.Array

    def __call__(self, x):
        for kernel, norm in zip(self.kernels, self.norms, strict=True):
            y = conv(x[None], kernel, 2, ("NCHW", "OIHW", "NCHW"))[0]
            x = jnp.maximum(norm(y), 0)
        return self.head @ jnp.ravel(x)


def equinox_style() -> Network:
    sizes = (3, 10, 7)
    net = Net(
        [jnp.zeros((o, i, 3, 3)) for i, o in itertools.pairwise(sizes)],
        [Norm(*jnp.zeros((4, n))) for n in sizes[1:]],
        jnp.zeros((2, sizes[-1] * 16)),
    )
    x = jnp.moveaxis(images(3, 16), -1, 1)
    return reads_shapes(lambda net, x: jax.vmap(net)(x), net, x)


@jax.custom_vjp
def scaled(x):
    return 2.0 * x


scaled.defvjp(lambda x: (2.0 * x, None), lambda _, g: (2.0 * g,))


def dict_mlp() -> Network:
    """A dict of arrays, through checkpoint, a custom derivative and cond."""

    def hidden(p, x):
        return jax.nn.relu((x @ p["w"]) * p["gamma"][None] + p["beta"][None])

    def fn(params, x):
        inputs_mean = x.mean()
        x = jax.checkpoint(hidden)(params["layer1"], x)
        x = scaled(hidden(params["layer2"], x))
        x = jax.lax.cond(inputs_mean > 0, lambda x: x + x, lambda x: jnp.tanh(x), x)
        return x @ params["out"]

    layer = lambda i, o: {"w": jnp.zeros((i, o)), "gamma": jnp.zeros(o), "beta": jnp.zeros(o)}  # noqa: E731
    params = {"layer1": layer(6, 14), "layer2": layer(14, 9), "out": jnp.zeros((9, 2))}
    return reads_shapes(fn, params, jax.random.normal(jax.random.key(1), (5, 6)))


def unet() -> Network:
    """Two levels, concatenated skips, pooling, nearest upsampling by repeat and by resize, a condition."""

    def block(p, x, t):
        y = conv(x, p["w"]) + p["b"] + (t @ p["time"])[:, None, None, :]
        return jax.nn.silu((y - p["mean"]) * jax.lax.rsqrt(p["var"] + 1e-5) * p["gamma"] + p["beta"])

    def pool(x):
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4

    def fn(p, x, t):
        with jax.numpy_rank_promotion("allow"):
            a = block(p["down1"], x, t)
            b = block(p["down2"], pool(a), t)
            c = block(p["middle"], pool(b), t)
            c = jnp.repeat(jnp.repeat(c, 2, axis=1), 2, axis=2)
            d = block(p["up2"], jnp.concatenate([c, b], axis=-1), t)
            d = jax.image.resize(d, (d.shape[0], 16, 16, d.shape[-1]), "nearest")
            e = block(p["up1"], jnp.concatenate([d, a], axis=-1), t)
            return conv(e, p["out"])

    def layer(i, o):
        vectors = {k: jnp.zeros(o) for k in ("b", "mean", "var", "gamma", "beta")}
        return {"w": jnp.zeros((3, 3, i, o)), "time": jnp.zeros((4, o)), **vectors}

    params = {
        "down1": layer(3, 8),
        "down2": layer(8, 10),
        "middle": layer(10, 12),
        "up2": layer(22, 9),
        "up1": layer(17, 8),
        "out": jnp.zeros((3, 3, 8, 3)),
    }
    return reads_shapes(fn, params, images(3, 16), jax.random.normal(jax.random.key(2), (2, 4)))


def reads_shapes(fn: Callable, variables: Any, *inputs: jax.Array) -> Network:
    """A function that reads its widths off the params."""
    return Network(fn, randomize(variables), inputs, lambda _: fn)


def images(channels: int, size: int) -> jax.Array:
    return jax.random.normal(jax.random.key(3), (2, size, size, channels))


def latents() -> jax.Array:
    return jax.random.normal(jax.random.key(5), (2, 5))


# At 16x16 our layers take every path that they have on CPU. SNGAN's generator is DCGAN's. The discriminators of SNGAN
# and ResNet-DCGAN have no norms, so no channels to mask: see the test of spectral norm.
OURS: dict[str, Callable[[], Network]] = {
    "our_dcgan_generator": lambda: ours(dcgan.Generator(4, 16), latents()),
    "our_dcgan_discriminator": lambda: ours(dcgan.Discriminator(4, 16), images(3, 16)),
    "our_resnet_generator": lambda: ours(resnet_gan.Generator(6, 16), latents()),
    "our_conv_autoencoder": lambda: ours(autoencoder.ConvAutoencoder(7, 4, 16), images(3, 16)),
    "our_conv_vae": lambda: ours(vae.conv_vae(7, 4, 16), images(3, 16), jax.random.key(0)),
    "our_resnet_vae": lambda: ours(vae.resnet_vae(7, 6, 16), images(3, 16), jax.random.key(0)),
    "our_resnet18": lambda: ours(classifier.ResNet18(width=6), images(3, 8)),
}

NETWORKS: dict[str, Callable[[], Network]] = {
    "dcgan_generator": lambda: linen(Generator(), jax.random.normal(jax.random.key(4), (2, 5))),
    "dcgan_discriminator": lambda: linen(Discriminator(), images(3, 16)),
    "resnet18": lambda: linen(ResNet18(), images(3, 32)),
    "conv_vae": lambda: linen(VAE(), images(3, 32)),
    "separable": lambda: linen(Separable(), images(3, 8)),
    "nnx_cnn": nnx_cnn,
    "haiku_style": haiku_style,
    "equinox_style": equinox_style,
    "dict_mlp": dict_mlp,
    "unet": unet,
    "mobilenet": lambda: ours(MobileNet(), images(3, 8)),
    "mobilenet_multiplier": lambda: ours(MobileNet(multiplier=2), images(3, 8)),
    "resnext": lambda: ours(ResNeXt(), images(3, 8)),
    "densenet": lambda: ours(DenseNet(), images(3, 8)),
    "flax_unet": lambda: ours(UNet(), images(3, 16)),
    **OURS,
}
