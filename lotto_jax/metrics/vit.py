"""The vision transformers that today's papers measure distances with: DINOv2 ViT-B/14 and CLIP ViT-B/16.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; Oquab et al., "DINOv2", TMLR 2024 (whose features Stein
et al., NeurIPS 2023, find closest to what people see); Radford et al., "Learning Transferable Visual Models From
Natural Language Supervision", ICML 2021.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree


class Network(NamedTuple):
    """Sizes and conventions of a vision transformer.

    Attributes:
      name: as metrics have it in their names.
      size: height and width of the images that it reads.
      patch: height and width of a patch.
      width, depth, heads, hidden: of the tokens, and of the hidden layer between them.
      trained: patches along a side at which its positions were trained.
      epsilon: of layer normalization.
      activation: of the hidden layers.
      projection: features that the class token is projected to; 0: it is the feature itself.
      mean, deviation: of the colors in [0, 1] that it was trained on.
    """

    name: str
    size: int
    patch: int
    width: int
    depth: int
    heads: int
    hidden: int
    trained: int
    epsilon: float
    activation: Callable[[Array], Array]
    projection: int
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


def exact_gelu(x: Array) -> Array:
    """x Phi(x)."""
    return jax.nn.gelu(x, approximate=False)


def quick_gelu(x: Array) -> Array:
    """x sigmoid(1.702 x), which CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_COLORS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
DINOV2 = Network("dinov2", 224, 14, 768, 12, 12, 3072, 37, 1e-6, exact_gelu, 0, *IMAGENET)
CLIP = Network("clip", 224, 16, 768, 12, 12, 3072, 14, 1e-5, quick_gelu, 512, *CLIP_COLORS)
NETWORKS = {network.name: network for network in (DINOV2, CLIP)}


def prepared(network: Network, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch size size 3"]:
    """Images as the network reads them: antialiased bicubic to its size, clipped, and in the units of its colors.

    Args:
      network: that reads them.
      images: float32 in [0, 255].
    """
    shape = (images.shape[0], network.size, network.size, 3)
    if images.shape != shape:
        images = jax.image.resize(images, shape, "cubic", antialias=True, precision=lax.Precision.HIGHEST)
    scaled = jnp.clip(images, 0.0, 255.0) / 255.0
    return (scaled - _over(scaled, jnp.asarray(network.mean))) / _over(scaled, jnp.asarray(network.deviation))


def _over(x: Array, vector: Array) -> Array:
    """A vector with as many axes as `x`, along its last one."""
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def _norm(x: Array, params: PyTree, epsilon: float) -> Array:
    centered = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
    return centered * lax.rsqrt(variance + epsilon) * _over(x, params["weight"]) + _over(x, params["bias"])


def _dense(x: Array, params: PyTree) -> Array:
    return x @ params["weight"] + _over(x, params["bias"])


def _block(network: Network, x: Array, params: PyTree) -> Array:
    """A transformer block; without layer scales their place is taken by ones."""
    batch, tokens, width = x.shape
    inside = _norm(x, params["norm1"], network.epsilon)
    query, key, value = (
        _dense(inside, params[name]).reshape(batch, tokens, network.heads, -1) for name in ("query", "key", "value")
    )
    attended = jax.nn.dot_product_attention(query, key, value).reshape(batch, tokens, width)
    x = x + _over(x, params["scale1"]) * _dense(attended, params["out"])
    inside = network.activation(_dense(_norm(x, params["norm2"], network.epsilon), params["fc1"]))
    return x + _over(x, params["scale2"]) * _dense(inside, params["fc2"])


def features(
    network: Network, params: PyTree, images: Float[Array, "batch size size 3"]
) -> Float[Array, "batch features"]:
    """The class token of prepared images, after the last normalization and CLIP's projection; products in float32.

    Args:
      network: whose sizes the params have.
      params: as `vit_weights.load` returns them; the blocks are stacked on their leading axis.
      images: see `prepared`.
    """
    grid = network.size // network.patch
    with jax.default_matmul_precision("highest"):
        patches = images.reshape(-1, grid, network.patch, grid, network.patch, 3).swapaxes(2, 3)
        tokens = _dense(patches.reshape(len(images), grid * grid, -1), params["patch"])
        first = jnp.broadcast_to(params["class"], (len(images), 1, network.width))
        x = jnp.concatenate([first, tokens], axis=1) + params["positions"][None]
        if "before" in params:
            x = _norm(x, params["before"], network.epsilon)
        x = lax.scan(lambda x, block: (_block(network, x, block), None), x, params["blocks"])[0]
        x = _norm(x[:, 0], params["after"], network.epsilon)
        return x @ params["projection"] if network.projection else x


@functools.cache
def apply(name: str) -> Callable[[PyTree, Array], dict[str, Array]]:
    """The `apply` of an extractor; one object for each network."""
    network = NETWORKS[name]
    return lambda params, images: {"class": features(network, params, prepared(network, images))}
