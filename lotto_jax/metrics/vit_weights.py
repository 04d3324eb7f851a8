"""Weights of DINOv2 and CLIP: from the published checkpoints of Hugging Face to a safetensors file, and to params.

The files are `model.safetensors` (or `pytorch_model.bin`) of `facebook/dinov2-base` and `openai/clip-vit-base-patch16`.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, PyTree
from safetensors.numpy import save_file

from lotto_jax.data import cache
from lotto_jax.metrics import weights
from lotto_jax.metrics.vit import NETWORKS, Network

SOURCES = {"dinov2": "facebook/dinov2-base", "clip": "openai/clip-vit-base-patch16"}
# What we call the parts, and what the published checkpoints call them.
_PARTS = {
    "dinov2": {
        "class": "embeddings.cls_token",
        "positions": "embeddings.position_embeddings",
        "patch": "embeddings.patch_embeddings.projection",
        "after": "layernorm",
        "blocks": "encoder.layer",
        "norm1": "norm1",
        "query": "attention.attention.query",
        "key": "attention.attention.key",
        "value": "attention.attention.value",
        "out": "attention.output.dense",
        "scale1": "layer_scale1.lambda1",
        "norm2": "norm2",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
        "scale2": "layer_scale2.lambda1",
    },
    "clip": {
        "class": "vision_model.embeddings.class_embedding",
        "positions": "vision_model.embeddings.position_embedding.weight",
        "patch": "vision_model.embeddings.patch_embedding",
        "before": "vision_model.pre_layrnorm",
        "after": "vision_model.post_layernorm",
        "projection": "visual_projection.weight",
        "blocks": "vision_model.encoder.layers",
        "norm1": "layer_norm1",
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "out": "self_attn.out_proj",
        "norm2": "layer_norm2",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
    },
}


def default_path(name: str) -> Path:
    """The file that `convert` writes and `load` reads when no other is named."""
    return cache.root() / f"{name}-vit-b.safetensors"


def expected_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that the published checkpoint of a network holds, as far as they are read."""
    parts, width, hidden = _PARTS[network.name], network.width, network.hidden
    dino = network.name == "dinov2"
    positions = (network.trained**2 + 1, width)
    shapes: dict[str, tuple[int, ...]] = {
        parts["class"]: (1, 1, width) if dino else (width,),
        parts["positions"]: (1, *positions) if dino else positions,
        f"{parts['patch']}.weight": (width, 3, network.patch, network.patch),
    }
    if dino:
        shapes[f"{parts['patch']}.bias"] = (width,)
    else:
        shapes[parts["projection"]] = (network.projection, width)
    for norm in ("before", "after"):
        if norm in parts:
            shapes |= {f"{parts[norm]}.{entry}": (width,) for entry in ("weight", "bias")}
    sizes = {"query": (width, width), "key": (width, width), "value": (width, width), "out": (width, width)}
    sizes |= {"fc1": (hidden, width), "fc2": (width, hidden)}
    for i in range(network.depth):
        block = f"{parts['blocks']}.{i}"
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}.{parts[norm]}.{entry}": (width,) for entry in ("weight", "bias")}
        for layer, size in sizes.items():
            shapes |= {f"{block}.{parts[layer]}.weight": size, f"{block}.{parts[layer]}.bias": size[:1]}
        shapes |= {f"{block}.{parts[scale]}": (width,) for scale in ("scale1", "scale2") if scale in parts}
    return shapes


def recognized(tensors: dict[str, np.ndarray]) -> Network | None:
    """The network that a checkpoint is of, by the name of its class token; None if it is of neither."""
    return next((network for name, network in NETWORKS.items() if _PARTS[name]["class"] in tensors), None)


def _check(path: Path, network: Network, tensors: dict[str, np.ndarray]) -> None:
    for name, shape in expected_shapes(network).items():
        if name not in tensors:
            raise ValueError(f"{path} has no {name!r}; use the file of {SOURCES[network.name]}.")
        if tensors[name].shape != shape:
            raise ValueError(
                f"{path}: {name!r} has shape {tensors[name].shape}, expected {shape}; use the file of "
                f"{SOURCES[network.name]}."
            )
        if not np.isfinite(tensors[name]).all():
            raise ValueError(f"{path}: {name!r} has entries that are not finite.")


def convert(path: str | Path, tensors: dict[str, np.ndarray], network: Network, output: str | Path | None) -> Path:
    """Write what a checkpoint has of a network as a safetensors file, after checking names and shapes.

    Args:
      path: of the checkpoint, for messages.
      tensors: by name, as read from there.
      network: see `recognized`.
      output: where to write; None means the user's cache, where `load` looks.

    Returns:
      The path written.

    Raises:
      ValueError: if tensors are missing or misshaped; the sentence names the first.
    """
    _check(Path(path), network, tensors)
    chosen = {name: np.ascontiguousarray(tensors[name], np.float32) for name in expected_shapes(network)}
    target = Path(output) if output is not None else default_path(network.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"source": Path(path).name, "sha256": weights.digest_of(chosen)}
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        temporary = Path(folder) / target.name
        save_file(chosen, temporary, metadata)
        os.replace(temporary, target)
    return target


def cubic(size: int, positions: int) -> Float[np.ndarray, "size positions"]:
    """The matrix of PyTorch's bicubic interpolation (a = -0.75, half pixels, no antialias, repeated borders)."""
    source = (np.arange(size) + 0.5) * positions / size - 0.5
    low = np.floor(source).astype(int)
    matrix = np.zeros((size, positions))
    for tap in range(-1, 3):
        x = np.abs(source - (low + tap))
        near = 1.25 * x**3 - 2.25 * x**2 + 1.0
        far = -0.75 * (x**3 - 5.0 * x**2 + 8.0 * x - 4.0)
        np.add.at(matrix, (np.arange(size), np.clip(low + tap, 0, positions - 1)), np.where(x <= 1, near, far))
    return matrix


def _positions(network: Network, trained: Float[np.ndarray, "positions width"]) -> Float[np.ndarray, "tokens width"]:
    """The positions of the class token and of the patches of its images."""
    grid = network.size // network.patch
    if grid == network.trained:
        return trained
    matrix = cubic(grid, network.trained)
    patches = trained[1:].astype(np.float64).reshape(network.trained, network.trained, -1)
    resized = np.einsum("ip,jq,pqw->ijw", matrix, matrix, patches, optimize=True).reshape(grid * grid, -1)
    return np.concatenate([trained[:1], resized.astype(np.float32)])


def params_of(network: Network, tensors: dict[str, np.ndarray]) -> PyTree:
    """The params of `vit.features` from the tensors of a checkpoint, kernels transposed to [in, out]."""
    parts, width = _PARTS[network.name], network.width

    def pair(name: str) -> dict[str, np.ndarray]:
        return {entry: tensors[f"{name}.{entry}"].T for entry in ("weight", "bias")}

    patch = tensors[f"{parts['patch']}.weight"].transpose(2, 3, 1, 0).reshape(-1, width)
    params: dict[str, Any] = {
        "class": tensors[parts["class"]].reshape(1, 1, width),
        "positions": _positions(network, tensors[parts["positions"]].reshape(-1, width)),
        "patch": {"weight": patch, "bias": tensors.get(f"{parts['patch']}.bias", np.zeros(width, np.float32))},
        "after": pair(parts["after"]),
    }
    if "before" in parts:
        params["before"] = pair(parts["before"])
    if network.projection:
        params["projection"] = tensors[parts["projection"]].T
    stacked: dict[str, Any] = {}
    blocks = [f"{parts['blocks']}.{i}" for i in range(network.depth)]
    for layer in ("norm1", "query", "key", "value", "out", "norm2", "fc1", "fc2"):
        own = [pair(f"{block}.{parts[layer]}") for block in blocks]
        stacked[layer] = {entry: np.stack([one[entry] for one in own]) for entry in ("weight", "bias")}
    for scale in ("scale1", "scale2"):
        one = np.ones(width, np.float32)
        stacked[scale] = np.stack([tensors[f"{b}.{parts[scale]}"] if scale in parts else one for b in blocks])
    return params | {"blocks": stacked}


def load(name: str, path: str | Path | None = None) -> tuple[PyTree, str]:
    """Params of a network from a safetensors file that `convert` wrote.

    Args:
      name: `dinov2` or `clip`.
      path: the file; None means the user's cache.

    Returns:
      The params (float32) and the SHA-256 of the weights.

    Raises:
      FileNotFoundError: if there are no weights; the sentence names the command that makes them.
      ValueError: if the file is damaged or belongs to another network.
    """
    file = Path(path) if path is not None else default_path(name)
    if not file.is_file():
        raise FileNotFoundError(
            f"No weights of {name} at {file}: download model.safetensors of {SOURCES[name]} from Hugging Face and "
            "convert it with `lotto-jax weights convert PATH`."
        )
    tensors, recorded = weights.read_safetensors(file)
    _check(file, NETWORKS[name], tensors)
    digest = weights.digest_of(tensors)
    if digest != recorded:
        raise ValueError(
            f"{file} does not match the checksum written with it; make it again with `lotto-jax weights convert PATH`."
        )
    return params_of(NETWORKS[name], tensors), digest
