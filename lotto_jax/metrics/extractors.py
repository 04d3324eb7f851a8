"""Feature extractors: one jitted function over batches of images, sharded over all local devices."""

import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree

from lotto_jax.metrics import images as image_sources
from lotto_jax.metrics import resize as resizes
from lotto_jax.metrics import vit, vit_weights, weights
from lotto_jax.metrics.inception import InceptionV3
from lotto_jax.models import platforms
from lotto_jax.models.classifier import ResNet18


class Extractor(NamedTuple):
    """A network that turns images into features.

    Attributes:
      name: `inception`, `dinov2`, `clip`, or another; see `metric_name`.
      identifier: names weights and preprocessing; stored with statistics, so that the networks do not get mixed up.
      params: arguments of `apply`.
      apply: `(params, images) -> {layer: features}`, pure; images are float32
        `[batch, height, width, channels]` in [0, 255], features `[batch, n]`. A module-level or cached function: it is
        compiled once per object.
      layer: what the Frechet distance looks at.
      channels: of the images that `apply` reads.
    """

    name: str
    identifier: str
    params: PyTree
    apply: Callable[[PyTree, Float[Array, "batch height width channels"]], dict[str, Array]]
    layer: str
    channels: int = 3


def metric_name(extractor: Extractor) -> str:
    """`fid` for Inception features, `fd_<name>` for any other, which no published number compares with."""
    return "fid" if extractor.name == "inception" else f"fd_{extractor.name}"


@functools.cache
def inception_apply(resize: str, dtype: str) -> Callable[[PyTree, Array], dict[str, Array]]:
    """The `apply` of an Inception extractor; one object for each resize mode and dtype."""
    network = InceptionV3(dtype=jnp.dtype(dtype))

    def apply(params: PyTree, images: Array) -> dict[str, Array]:
        return cast(dict[str, Array], network.apply({"params": params}, resizes.MODES[resize](images)))

    return apply


def inception(path: str | Path | None = None, resize: str = "tf1", dtype: Any = jnp.float32) -> Extractor:
    """The FID Inception network.

    Args:
      path: safetensors file of `lotto-jax weights convert`; None means the user's cache.
      resize: `tf1` (TTUR, ADM, torch-fidelity), `pytorch` (pytorch-fid) or `clean` (clean-fid).
      dtype: float32, or bfloat16 for speed where numbers need not be comparable.

    Raises:
      FileNotFoundError: if there are no weights; the sentence names the commands that make them.
      ValueError: for an unknown resize, or weights that do not match.
    """
    if resize not in resizes.MODES:
        raise ValueError(f"Unknown resize {resize!r}; choose one of {', '.join(resizes.MODES)}.")
    params, digest = weights.load(path)
    name = jnp.dtype(dtype).name
    return Extractor(
        "inception",
        f"inception-{digest[:16]}-{resize}-{name}",
        params,
        inception_apply(resize, name),
        "2048",
    )


def transformer(name: str, path: str | Path | None = None) -> Extractor:
    """DINOv2 or CLIP, whose features are the class token: see `vit.features`.

    Args:
      name: `dinov2` or `clip`.
      path: safetensors file of `lotto-jax weights convert`; None means the user's cache.

    Raises:
      FileNotFoundError: if there are no weights; the sentence names the command that makes them.
      ValueError: for weights that do not match.
    """
    params, digest = vit_weights.load(name, path)
    return Extractor(name, f"{name}-vit-b-{digest[:16]}", params, vit.apply(name), "class")


@functools.cache
def _classifier_apply(network: ResNet18) -> Callable[[PyTree, Array], dict[str, Array]]:
    def apply(variables: PyTree, images: Array) -> dict[str, Array]:
        with jax.default_matmul_precision("highest"):  # as for Inception: TF32 would move distances
            penultimate, logits = network.apply(variables, images / 255.0, method="features")
        return {"penultimate": penultimate, "logits": logits}

    return apply


def resnet18(network: ResNet18, params: PyTree, model_state: PyTree, channels: int = 3) -> Extractor:
    """The penultimate features of a trained classifier, whose Frechet distance is `fd_resnet18`, never `fid`.

    Args:
      network: the module.
      params: its trained params (masked, if it is a ticket).
      model_state: its batch statistics.
      channels: of the images that it was trained on.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path((params, model_state)):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes())
    variables = {"params": params, **model_state}
    identifier = f"resnet18-{digest.hexdigest()[:16]}"
    return Extractor("resnet18", identifier, variables, _classifier_apply(network), "penultimate", channels)


@functools.partial(jax.jit, static_argnames=("apply", "layers", "mesh"))
def compute(params: PyTree, images: Array, apply: Callable, layers: tuple[str, ...], mesh: Mesh) -> dict[str, Array]:
    """The features of a batch that is sharded over the axis `data` of a mesh: what `stream` runs."""

    def of_shard(params: PyTree, images: Array) -> dict[str, Array]:
        scaled = images.astype(jnp.float32)
        if images.dtype != jnp.uint8:
            scaled = (scaled + 1.0) * 127.5
        with platforms.compiling_for(mesh.devices.flat[0].platform):
            features = apply(params, scaled)
        return {layer: features[layer] for layer in layers}

    over_data = PartitionSpec("data")
    return jax.shard_map(of_shard, mesh=mesh, in_specs=(PartitionSpec(), over_data), out_specs=over_data)(
        params, images
    )


def stream(
    source: image_sources.Source,
    extractor: Extractor,
    layers: tuple[str, ...] | None = None,
    batch_size: int = 64,
) -> Iterator[dict[str, np.ndarray]]:
    """Features batch by batch, on the host as float32 `{layer: [batch, n]}`.

    Images are sharded over the local devices; images already on a device do not pass through the host. The next batch
    is under way while the caller uses the last.

    Args:
      source: see `images.batches`.
      extractor: the network.
      layers: of its features; None means the one of the Frechet distance.
      batch_size: images a step, over all devices together; results do not depend on it.
    """
    layers = (extractor.layer,) if layers is None else tuple(layers)
    mesh = Mesh(np.asarray(jax.local_devices()), ("data",))
    sharded = NamedSharding(mesh, PartitionSpec("data"))
    params = jax.device_put(extractor.params, NamedSharding(mesh, PartitionSpec()))
    width = 0
    pending: tuple[dict[str, Array], int] | None = None

    def fetch(output: dict[str, Array], count: int) -> dict[str, np.ndarray]:
        return {layer: np.asarray(value)[:count].astype(np.float32) for layer, value in output.items()}

    for batch in image_sources.batches(source, batch_size, extractor.channels):
        count = len(batch)
        width = max(width, -(-count // mesh.size) * mesh.size)  # a short last batch reuses the program
        if count < width:
            pad = np.pad if isinstance(batch, np.ndarray) else jnp.pad
            batch = pad(batch, [(0, width - count), (0, 0), (0, 0), (0, 0)])
        output = compute(params, jax.device_put(batch, sharded), extractor.apply, layers, mesh)
        if pending is not None:
            yield fetch(*pending)
        pending = output, count
    if pending is not None:
        yield fetch(*pending)


def features(
    source: image_sources.Source,
    extractor: Extractor,
    layers: tuple[str, ...] | None = None,
    batch_size: int = 64,
) -> dict[str, Float[np.ndarray, "images features"]]:
    """Features of all images, one float32 array `[images, n]` a layer: for KID, precision and the like.

    The arguments and errors are as in `stream`.

    Raises:
      ValueError: also if there are no images.
    """
    parts = list(stream(source, extractor, layers, batch_size))
    if not parts:
        raise ValueError("No images were given, so there are no features.")
    return {layer: np.concatenate([part[layer] for part in parts]) for layer in parts[0]}
