"""Inception weights: from the published PyTorch checkpoints to a safetensors file, and to params.

The checkpoints are zip files or, from before PyTorch 1.6, plain streams around a pickle. They are read here
without PyTorch and without running anything they contain: the unpickler builds dictionaries and descriptions
of tensors only.
"""

import functools
import hashlib
import io
import os
import pickle
import tempfile
import urllib.request
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lotto_jax.data import cache
from lotto_jax.metrics.inception import InceptionV3

URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
# The file of pytorch-fid and torch-fidelity (two names, the same bytes).
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
PUBLIC_NAMES = ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth")
BN_EPSILON = 1e-3  # the 2015 graph's, 100 times PyTorch's default

_MISSING = (
    "No Inception weights at {path}: convert a copy of {name} with `lotto-jax weights convert PATH`, "
    "or download and convert it with `lotto-jax weights fetch`."
)


def default_path() -> Path:
    """The file that `convert` writes and `load` reads when no other is named."""
    return cache.root() / "inception-2015-12-05.safetensors"


# --- Reading PyTorch files ------------------------------------------------------------------------


class _Tensor(NamedTuple):
    """What a pickle says about a tensor; its numbers are looked up after unpickling."""

    storage: tuple
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Storage(NamedTuple):
    dtype: str


def _rebuild_tensor(storage: tuple, offset: int, shape: tuple, strides: tuple, *_: object) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(data: _Tensor, *_: object) -> _Tensor:
    return data


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "HalfStorage"): _Storage("<f2"),
    ("torch", "FloatStorage"): _Storage("<f4"),
    ("torch", "DoubleStorage"): _Storage("<f8"),
    ("torch", "LongStorage"): _Storage("<i8"),
}


class _Unpickler(pickle.Unpickler):
    """Builds plain containers and `_Tensor`; anything else that a pickle asks for is refused by name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise ValueError(f"it asks for {module}.{name}, which a file of weights has no use for")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> tuple:
        return pid  # ("storage", _Storage, key, location, number of entries[, view])


def _array(name: str, tensor: Any, storages: dict[str, bytes]) -> np.ndarray:
    """The numbers of one tensor, copied out of its storage after checking that it lies inside."""
    if not isinstance(name, str) or not isinstance(tensor, _Tensor):
        raise ValueError(f"its entry {name!r} is not a tensor")
    _, storage, key, _, *_ = tensor.storage
    if key not in storages:
        raise ValueError(f"the numbers of {name!r} are missing")
    data = np.frombuffer(storages[key], storage.dtype)
    sizes = (*tensor.shape, *tensor.strides, tensor.offset)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    if any(type(n) is not int or n < 0 for n in sizes) or (0 not in tensor.shape and last >= data.size):
        raise ValueError(f"{name!r} does not fit into its storage")
    strides = [s * data.itemsize for s in tensor.strides]
    return np.lib.stride_tricks.as_strided(data[tensor.offset :], tensor.shape, strides).copy()


def _read_zip(file: io.BytesIO) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        root = next((n for n in names if n.endswith("data.pkl")), None)
        if root is None:
            raise ValueError("the archive holds no data.pkl")
        prefix = root.removesuffix("data.pkl")
        if prefix + "byteorder" in names and archive.read(prefix + "byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        state = _Unpickler(io.BytesIO(archive.read(root))).load()
        directory = prefix + "data/"
        return state, {n.removeprefix(directory): archive.read(n) for n in names if n.startswith(directory)}


def _read_stream(file: io.BytesIO) -> tuple[Any, dict[str, bytes]]:
    magic, version, system = (_Unpickler(file).load() for _ in range(3))
    if magic != 0x1950A86A20F9469CFC6C or version != 1001 or not system.get("little_endian", True):
        raise ValueError("it has not the header of a PyTorch file")
    dtypes: dict[str, str] = {}

    class Reader(_Unpickler):
        def persistent_load(self, pid: Any) -> tuple:
            dtypes[pid[2]] = pid[1].dtype
            return pid

    state = Reader(file).load()
    storages = {}
    for key in _Unpickler(file).load():
        size = int.from_bytes(file.read(8), "little") * np.dtype(dtypes[key]).itemsize
        storages[key] = file.read(size)
    return state, storages


def read_pytorch(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch `state_dict` file, read without PyTorch and without running pickled code.

    Args:
      path: what `torch.save(model.state_dict(), path)` wrote, in the zip format or the one before PyTorch
        1.6.

    Raises:
      ValueError: if the file is damaged, is no state_dict, or asks for any other class or function.
    """
    data = io.BytesIO(Path(path).read_bytes())
    try:
        state, storages = (_read_zip if zipfile.is_zipfile(data) else _read_stream)(_rewound(data))
        if not isinstance(state, dict):
            raise ValueError("it holds no dictionary of tensors")
        return {name: _array(name, tensor, storages) for name, tensor in state.items()}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError) as error:
        raise ValueError(f"{path} is not a PyTorch state_dict that can be read: {error}.") from None
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged or no PyTorch file: {error}.") from None


def read_safetensors(path: str | Path) -> tuple[dict[str, np.ndarray], str | None]:
    """The tensors of a safetensors file, and the checksum that was written with them.

    Raises:
      ValueError: if it is none.
    """
    try:
        with safe_open(path, "numpy") as file:
            recorded = (file.metadata() or {}).get("sha256")
            return {name: file.get_tensor(name) for name in file.keys()}, recorded  # noqa: SIM118  (not a dictionary)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no safetensors file ({error}); make it with `lotto-jax weights convert PATH`."
        ) from None


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint, safetensors or PyTorch's format; raises ValueError if it is neither."""
    if not Path(path).is_file():
        raise ValueError(f"There is no file {path}; name a downloaded checkpoint.")
    return read_safetensors(path)[0] if Path(path).suffix == ".safetensors" else read_pytorch(path)


def _rewound(file: io.BytesIO) -> io.BytesIO:
    file.seek(0)
    return file


# --- Names and shapes -----------------------------------------------------------------------------


def param_shapes() -> PyTree:
    """Shapes and dtypes of the params of `InceptionV3`, as a pytree of `jax.ShapeDtypeStruct`."""
    image = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
    return jax.eval_shape(InceptionV3().init, jax.random.key(0), image)["params"]


@functools.cache
def _modules() -> dict[str, tuple[int, ...]]:
    """`{name of the convolution in the checkpoint: HWIO shape of its kernel}`, and `fc`."""
    leaves = jax.tree_util.tree_leaves_with_path(param_shapes())
    names = [(tuple(k.key for k in path), leaf.shape) for path, leaf in leaves]
    return {".".join(path[:-1]): shape for path, shape in names if path[-1] == "kernel"}


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that the published checkpoints hold, in PyTorch's layout."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (height, width, channels, features) in _modules().items():
        if name == "fc":
            shapes |= {"fc.weight": (features, channels), "fc.bias": (features,)}
            continue
        shapes[f"{name}.conv.weight"] = (features, channels, height, width)
        for entry in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{entry}"] = (features,)
    return shapes


def _check(path: str | Path, tensors: dict[str, np.ndarray]) -> None:
    expected = expected_shapes()
    if missing := [n for n in expected if n not in tensors]:
        raise ValueError(
            f"{path} has no {missing[0]!r} ({len(missing)} of {len(expected)} names are missing): "
            f"it is not the FID Inception network; use {PUBLIC_NAMES[0]}."
        )
    if extra := [n for n in tensors if n not in expected]:
        raise ValueError(
            f"{path} has {extra[0]!r}, which the FID Inception network lacks (torchvision's "
            f"InceptionV3 will not do); use {PUBLIC_NAMES[0]}."
        )
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{path}: {name!r} has shape {tensors[name].shape}, expected {shape}.")
        if not np.isfinite(tensors[name]).all():
            raise ValueError(f"{path}: {name!r} has entries that are not finite.")


def digest_of(tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 over names and numbers, independent of the file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()


# --- Commands -------------------------------------------------------------------------------------


def convert(path: str | Path, output: str | Path | None = None) -> Path:
    """Write the weights in `path` as a safetensors file, after checking checksum, names and shapes.

    Args:
      path: `pt_inception-2015-12-05-6726825d.pth` or `weights-inception-2015-12-05-6726825d.pth`, or any
        state_dict of that network under another name (for instance with random weights).
      output: where to write; None means the user's cache, where `load` looks.

    Returns:
      The path written.

    Raises:
      ValueError: if the file is damaged or belongs to another network; the sentence names the tensor.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file {path}; name the downloaded {PUBLIC_NAMES[0]}.")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if path.name in PUBLIC_NAMES and digest != SHA256:
        raise ValueError(f"{path} has SHA-256 {digest}, expected {SHA256}: the download is damaged; fetch it again.")
    tensors = {
        name: value.astype(np.float32)
        for name, value in read_pytorch(path).items()
        if not name.endswith("num_batches_tracked")
    }
    _check(path, tensors)
    target = Path(output) if output is not None else default_path()
    target.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"source": path.name, "source_sha256": digest, "sha256": digest_of(tensors)}
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        temporary = Path(folder) / target.name
        save_file(tensors, temporary, metadata)
        os.replace(temporary, target)
    return target


def fetch(output: str | Path | None = None, url: str = URL) -> Path:
    """Download the published weights (96 MB) and `convert` them.

    Args:
      output: as for `convert`.
      url: where to download from.

    Raises:
      ConnectionError: if the download fails; the sentence names the address and the alternative.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / url.rsplit("/", 1)[-1]
        try:
            with urllib.request.urlopen(url, timeout=60) as response, path.open("wb") as file:
                while block := response.read(1 << 20):
                    file.write(block)
        except OSError as error:
            raise ConnectionError(
                f"Could not download {url} ({error}); download it elsewhere and run `lotto-jax weights convert PATH`."
            ) from None
        return convert(path, output)


def fold(
    kernel: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of the convolution that equals a bias-free convolution followed by batch normalization.

    Args:
      kernel: `[features, channels, height, width]` (PyTorch's layout).
      gamma, beta, mean, variance: of the normalization, each `[features]`.

    Returns:
      kernel `[height, width, channels, features]` and bias `[features]`, float32, computed in float64.
    """
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + BN_EPSILON)
    folded = kernel.astype(np.float64).transpose(2, 3, 1, 0) * scale
    return folded.astype(np.float32), (beta - mean * scale).astype(np.float32)


def load(path: str | Path | None = None) -> tuple[PyTree, str]:
    """Params of `InceptionV3` from a safetensors file that `convert` wrote.

    Args:
      path: the file; None means the user's cache.

    Returns:
      The params (float32, batch normalization folded in) and the SHA-256 of the weights.

    Raises:
      FileNotFoundError: if there are no weights; the sentence names the two commands that make them.
      ValueError: if the file is damaged or belongs to another network.
    """
    path = Path(path) if path is not None else default_path()
    if not path.is_file():
        raise FileNotFoundError(_MISSING.format(path=path, name=PUBLIC_NAMES[0]))
    tensors, recorded = read_safetensors(path)
    _check(path, tensors)
    digest = digest_of(tensors)
    if digest != recorded:
        raise ValueError(
            f"{path} does not match the checksum written with it; make it again with `lotto-jax weights convert PATH`."
        )
    params: dict[str, Any] = {}
    for name in _modules():
        if name == "fc":
            entry = {"kernel": tensors["fc.weight"].T[None, None], "bias": tensors["fc.bias"]}
        else:
            bn = [tensors[f"{name}.bn.{e}"] for e in ("weight", "bias", "running_mean", "running_var")]
            kernel, bias = fold(tensors[f"{name}.conv.weight"], *bn)
            entry = {"kernel": kernel, "bias": bias}
        *parents, last = name.split(".")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = entry
    return params, digest
