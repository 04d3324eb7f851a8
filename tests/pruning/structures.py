"""Tiny networks with norm groups, heads, loops, lookups and shuffles, their sizes written in."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tests.pruning.networks import Network, conv, images, randomize


class GroupNormUNet(nn.Module):
    """Two levels with a concatenated skip, group norms of 4 groups of 2, an instance norm."""

    @nn.compact
    def __call__(self, x):
        a = nn.silu(nn.GroupNorm(4, name="norm_a")(nn.Conv(8, (3, 3), name="a")(x)))
        b = nn.max_pool(a, (2, 2), (2, 2))
        b = nn.relu(nn.InstanceNorm(name="norm_b")(nn.Conv(8, (3, 3), name="b")(b)))
        b = nn.ConvTranspose(8, (2, 2), (2, 2), name="up")(b)
        c = nn.gelu(nn.GroupNorm(4, name="norm_c")(nn.Conv(8, (3, 3), name="c")(jnp.concatenate([b, a], -1))))
        return nn.Conv(3, (1, 1), name="out")(c)


def network(fn: Callable, shapes: Any, *inputs: jax.Array) -> Network:
    def allowing(*args):
        with jax.numpy_rank_promotion("allow"):
            return fn(*args)

    return Network(allowing, randomize(shapes), inputs, lambda _: allowing)


def flax_network(module: nn.Module, *inputs: jax.Array) -> Network:
    return network(module.apply, jax.eval_shape(module.init, jax.random.key(0), *inputs), *inputs)


def layer_norm(p, x):
    mean = x.mean(-1, keepdims=True)
    variance = (x * x).mean(-1, keepdims=True) - mean**2
    return (x - mean) * jax.lax.rsqrt(variance + 1e-6) * p["scale"] + p["bias"]


def transformer() -> Network:
    """Embedding, then a block with 4 query heads of 3 on 2 key and value heads, layer norms, gated units."""

    def fn(p, tokens):
        batch, length = tokens.shape
        x = p["embed"][tokens]
        y = layer_norm(p["ln1"], x)
        q = (y @ p["q"]).reshape(batch, length, 2, 2, 3)
        k = (y @ p["k"]).reshape(batch, length, 2, 3)
        v = (y @ p["v"]).reshape(batch, length, 2, 3)
        logits = jnp.einsum("bqgrd,bkgd->bgrqk", q, k) / jnp.sqrt(q.shape[-1])
        causal = jnp.tril(jnp.ones((length, length), bool))
        weights = jax.nn.softmax(jnp.where(causal, logits, -1e9))
        y = jnp.einsum("bgrqk,bkgd->bqgrd", weights, v).reshape(batch, length, -1)
        x = x + y @ p["o"]
        y = layer_norm(p["ln2"], x)
        x = x + (jax.nn.silu(y @ p["gate"]) * (y @ p["up"])) @ p["down"]
        return layer_norm(p["ln3"], x) @ p["head"]

    norm = {"scale": jnp.zeros(8), "bias": jnp.zeros(8)}
    params = {
        "embed": jnp.zeros((11, 8)),
        "q": jnp.zeros((8, 12)),
        "k": jnp.zeros((8, 6)),
        "v": jnp.zeros((8, 6)),
        "o": jnp.zeros((12, 8)),
        "gate": jnp.zeros((8, 10)),
        "up": jnp.zeros((8, 10)),
        "down": jnp.zeros((10, 8)),
        "head": jnp.zeros((8, 5)),
        **{f"ln{i}": norm for i in (1, 2, 3)},
    }
    return network(fn, params, jax.random.randint(jax.random.key(0), (2, 4), 0, 11))


def repeated_keys() -> Network:
    """Grouped queries by repeating keys and values, queries turned by their positions."""

    def turn(x):
        angle = jnp.arange(x.shape[1])[:, None, None] / 7.0
        a, b = jnp.split(x, [2], axis=-1)
        return jnp.concatenate([a * jnp.cos(angle) - b * jnp.sin(angle), b * jnp.cos(angle) + a * jnp.sin(angle)], -1)

    def fn(p, x):
        q = turn((x @ p["q"]).reshape(2, 5, 4, 4))
        k = jnp.repeat(turn((x @ p["k"]).reshape(2, 5, 2, 4)), 2, axis=2)
        v = jnp.repeat((x @ p["v"]).reshape(2, 5, 2, 4), 2, axis=2)
        y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k)), v)
        return y.reshape(2, 5, 16) @ p["o"]

    shapes = {"q": (6, 16), "k": (6, 8), "v": (6, 8), "o": (16, 3)}
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    return network(fn, params, jax.random.normal(jax.random.key(1), (2, 5, 6)))


def lstm() -> Network:
    """An LSTM over time by `scan`: one kernel makes the four gates of 8 units."""

    def fn(p, x):
        def step(state, x):
            h, c = state
            i, f, g, o = jnp.split(jnp.concatenate([x, h], -1) @ p["kernel"] + p["bias"], 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        state = (jnp.zeros((2, 8)), jnp.zeros((2, 8)))
        _, hs = jax.lax.scan(step, state, x)
        return hs @ p["head"]

    params = {"kernel": jnp.zeros((5 + 8, 32)), "bias": jnp.zeros(32), "head": jnp.zeros((8, 3))}
    return network(fn, params, jax.random.normal(jax.random.key(1), (6, 2, 5)))


def stacked() -> Network:
    """Residual layers by `scan` over stacked params, repeated by `while`."""

    def fn(p, x, times):
        def layer(x, p):
            return x + jax.nn.relu(x @ p["w1"] + p["b1"]) @ p["w2"], None

        x = x @ p["in"]
        x = jax.lax.fori_loop(0, times, lambda _, x: jax.lax.scan(layer, x, p["layers"])[0], x)
        return x @ p["out"]

    layers = {"w1": jnp.zeros((3, 8, 6)), "b1": jnp.zeros((3, 6)), "w2": jnp.zeros((3, 6, 8))}
    params = {"in": jnp.zeros((4, 8)), "layers": layers, "out": jnp.zeros((8, 2))}
    return network(fn, params, jax.random.normal(jax.random.key(1), (3, 4)), jnp.int32(2))


def mobilenet() -> Network:
    """An inverted residual block and a pixel shuffle, group count and widths written in."""

    def fn(p, x):
        x = conv(x, p["stem"])
        y = jax.nn.relu6(conv(x, p["expand"]) + p["bias"])
        numbers = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(y, p["depth"], (1, 1), "SAME", None, None, numbers, 8)
        y = x + conv(jax.nn.relu6(y), p["point"])
        y = conv(y, p["shuffle"]).reshape(2, 4, 4, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 8, 8, 3)
        return conv(jax.nn.relu(y), p["out"])

    shapes = {"stem": (1, 1, 3, 4), "expand": (1, 1, 4, 8), "depth": (3, 3, 1, 8), "point": (1, 1, 8, 4)}
    shapes |= {"shuffle": (1, 1, 4, 12), "out": (3, 3, 3, 2)}
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()} | {"bias": jnp.zeros(8)}
    return network(fn, params, images(3, 4))


def flax_attention() -> Network:
    module = nn.Sequential([nn.Dense(8), nn.LayerNorm(), nn.MultiHeadDotProductAttention(4), nn.RMSNorm(), nn.Dense(3)])
    return flax_network(module, jax.random.normal(jax.random.key(1), (2, 4, 5)))


def tokens() -> Network:
    """A class token repeated over the batch, tokens written into an array of zeros, sums of what is not zero."""

    def fn(p, x):
        x = jax.lax.dynamic_update_slice(jnp.zeros((2, 7, 8)), x @ p["in"], (0, 1, 0))
        x = x + jnp.tile(p["token"], (2, 7, 1))
        y = (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(jnp.var(x, -1, keepdims=True) + 1e-6)
        y = y * p["ln"]["scale"] + p["ln"]["bias"]
        y = jnp.tanh(y) / jnp.linalg.norm(jnp.cos(x), axis=-1, keepdims=True)  # where x is 0, the cosine is 1
        return y @ p["out"]

    norm = {"scale": jnp.zeros(8), "bias": jnp.zeros(8)}
    params = {"in": jnp.zeros((5, 8)), "token": jnp.zeros((1, 1, 8)), "ln": norm, "out": jnp.zeros((8, 3))}
    return network(fn, params, jax.random.normal(jax.random.key(1), (2, 6, 5)))


STRUCTURES: dict[str, Callable[[], Network]] = {
    "group_norm_unet": lambda: flax_network(GroupNormUNet(), images(3, 8)),
    "flax_attention": flax_attention,
    "transformer": transformer,
    "repeated_keys": repeated_keys,
    "lstm": lstm,
    "stacked": stacked,
    "mobilenet_block": mobilenet,
    "tokens": tokens,
}
