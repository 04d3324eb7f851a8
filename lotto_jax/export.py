"""Trained networks for other programs: as a file that JAX alone runs and a file of weights, or in PyTorch's layouts.

A compacted network (`pruning.compact`) is exported as the small dense network that it is; a masked one as it stands,
with its zeros. `int8` makes the file of either four times smaller.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from jaxtyping import Array, PyTree

try:
    from safetensors.numpy import save as pack
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("lotto_jax.export needs safetensors; pip install 'lotto_jax[run]'.") from error

from lotto_jax.models import layers, platforms
from lotto_jax.pruning.masks import Prunable, is_kernel, path_name
from lotto_jax.runs.files import write_atomically

PROGRAM, WEIGHTS = "network.jax", "weights.safetensors"
_BACKENDS = {"cuda": "gpu", "rocm": "gpu"}  # other names are those of `jax.Device.platform`
_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def named(tree: PyTree) -> dict[str, Array]:
    """The arrays of a tree by the names of their paths: `{"params/dense/kernel": ...}`.

    Raises:
      ValueError: if two paths have the same name.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    found = {path_name(path): leaf for path, leaf in leaves}
    if len(found) < len(leaves):
        names = [path_name(path) for path, _ in leaves]
        raise ValueError(f"Two leaves are called {max(names, key=names.count)!r}; rename one of them.")
    return found


def save(
    directory: str | Path,
    function: Callable[..., PyTree],
    variables: PyTree,
    *inputs: PyTree,
    on: Sequence[str] = ("cpu",),
) -> None:
    """Write a network as `network.jax`, a program of `jax.export`, and `weights.safetensors`.

    The program takes the weights as a dict `{name: array}` (see `named`), as safetensors has them, and then the inputs.
    docs/export.md shows how a program without this package runs it.

    Args:
      directory: made if missing.
      function: `(variables, *inputs)` to a pytree of arrays: `functools.partial(model.apply, train=False)`, say, or
        `models.compacted.following` of that for a compacted Flax module.
      variables: pytree of arrays.
      *inputs: pytrees of arrays or `jax.ShapeDtypeStruct`, whose axes may be symbolic (`jax.export.symbolic_shape`).
      on: the platforms that the program is for: "cpu", "cuda", "tpu". Several make a program that is not in the form
        that is fastest on a CPU.

    Raises:
      ValueError: if two leaves of `variables` have the same name.
      OSError: if the files cannot be written.
    """
    weights, structure = named(variables), jax.tree.structure(variables)
    names = list(weights)

    def program(weights: dict[str, Array], *inputs: PyTree) -> PyTree:
        if len(on) > 1:
            with layers.plain_lowering():
                return run(weights, *inputs)
        with platforms.compiling_for(_BACKENDS.get(on[0], on[0])):
            return run(weights, *inputs)

    def run(weights: dict[str, Array], *inputs: PyTree) -> PyTree:
        return function(jax.tree.unflatten(structure, [weights[name] for name in names]), *inputs)

    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in weights.items()}
    exported = export.export(jax.jit(program), platforms=on)(shapes, *inputs)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / PROGRAM, bytes(exported.serialize()))
    write_atomically(directory / WEIGHTS, pack({name: np.ascontiguousarray(x) for name, x in weights.items()}))


def int8(
    function: Callable[..., PyTree], variables: PyTree, quantized: Prunable = is_kernel
) -> tuple[Callable[..., PyTree], PyTree]:
    """A network whose kernels are 8-bit integers, each output channel with a float scale; for `save`, or to be called.

    Weights are rounded by Qwix (`pip install "lotto_jax[int8]"`), symmetrically: the largest |w| of an output channel,
    the last axis, becomes 127, and 0 stays 0, so masked weights stay masked. The program multiplies the scales back in
    and computes as before, in the dtype of the kernels: what becomes smaller is the file and the memory of the weights,
    not the number of products. A saved program runs without Qwix. Takes any function of a pytree of variables, whatever
    library it was written with.

    Args:
      function: `(variables, *inputs)` to a pytree of arrays, as for `save`.
      variables: pytree of arrays.
      quantized: `(path, leaf)` to whether a leaf becomes 8-bit; kernels by default, as in `lotto_jax.pruning.ones`.

    Returns:
      The function of the quantized variables, and these: each kernel is a `qwix.QArray` with the leaves `qvalue` (int8,
      the shape of the kernel) and `scale` (the dtype of the kernel, [1, ..., 1, output channels]).

    Raises:
      ModuleNotFoundError: without Qwix: says how to install it.

    So `function, small = int8(model.apply, variables)`, then `save("network", function, small, images)`.
    """
    try:
        import qwix
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("8-bit export needs Qwix; pip install 'lotto_jax[int8]'.") from error

    def rounded(path: tuple, leaf: Array) -> Any:
        return qwix.quantize(leaf, np.int8, channelwise_axes=(leaf.ndim - 1,)) if quantized(path, leaf) else leaf

    def run(variables: PyTree, *inputs: PyTree) -> PyTree:
        is_rounded = lambda x: isinstance(x, qwix.QArray)  # noqa: E731
        restored = jax.tree.map(lambda x: qwix.dequantize(x) if is_rounded(x) else x, variables, is_leaf=is_rounded)
        return function(restored, *inputs)

    return run, jax.tree_util.tree_map_with_path(rounded, variables)


def torch_state_dict(
    variables: PyTree, transposed: Callable[[str], bool] = lambda name: False
) -> dict[str, np.ndarray[Any, Any]]:
    """Flax variables as PyTorch's `state_dict` of a network whose modules have the same names, in NumPy.

    Kernels [in, out] of dense layers become [out, in]; [height, width, in, out] of convolutions become
    [out, in, height, width], and of transposed ones, which PyTorch mirrors, [in, out, height, width]. Batch statistics
    become buffers.

    Args:
      variables: of a Flax module, `{"params": ..., "batch_stats": ...}`; nested dicts of arrays.
      transposed: `"decoder/conv_8"` (the path of a layer) to whether it is a transposed convolution.

    Raises:
      ValueError: if a kernel has neither two nor four dimensions: names it.
    """
    found = {}
    for name, value in named(variables).items():
        _, *scopes, kind = name.split("/")
        array = np.asarray(value)
        if kind == "kernel":
            array = _torch_kernel("/".join(scopes), array, transposed)
        elif kind == "mean":
            found[".".join([*scopes, "num_batches_tracked"])] = np.asarray(0)
        found[".".join([*scopes, _NAMES.get(kind, kind)])] = np.ascontiguousarray(array)
    return found


def _torch_kernel(layer: str, kernel: np.ndarray, transposed: Callable[[str], bool]) -> np.ndarray:
    if kernel.ndim == 2:
        return kernel.T
    if kernel.ndim != 4:
        raise ValueError(f"The kernel of {layer!r} has {kernel.ndim} dimensions; PyTorch's form is known for 2 and 4.")
    if transposed(layer):
        return kernel[::-1, ::-1].transpose(2, 3, 0, 1)
    return kernel.transpose(3, 2, 0, 1)
