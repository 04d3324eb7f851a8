"""Tickets as files: mask, rewound weights and provenance in one safetensors file that any JAX program can start from.

The file holds the tensors `params/<leaf>` and `model_state/<leaf>`, the state that the ticket starts from, and
`mask/<leaf>`, boolean, for the leaves that are pruned; its metadata have the provenance as JSON under `provenance`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lotto_jax.pruning import masks
from lotto_jax.runs import directory as directories
from lotto_jax.runs import kept, tickets
from lotto_jax.runs.files import write_atomically
from lotto_jax.training import checkpoints, detection

PARTS = ("params", "model_state", "mask")


class LoadedTicket(NamedTuple):
    """A ticket from a file.

    Attributes:
      params: the weights that it starts from, not masked yet: nested dicts of arrays, or the structure of `like`.
      mask: boolean, of the structure of params; a scalar True for leaves that are not pruned. `pruning.apply` takes it.
      model_state: batch statistics and the like, nested dicts of arrays.
      provenance: the run, round, arm, seed and sparsity that it comes from.
    """

    params: PyTree
    mask: masks.Mask
    model_state: PyTree
    provenance: dict[str, Any]


def load(path: str | Path, like: PyTree | None = None) -> LoadedTicket:
    """Read a ticket.

    Args:
      path: the file.
      like: params of the network that shall start from it (arrays or shapes).

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is damaged or no ticket, or does not fit `like`: names the first leaf that differs.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no ticket file {path}; `lotto-jax ticket export` writes one.")
    parts: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
    try:
        with safe_open(path, "numpy") as file:
            provenance = json.loads((file.metadata() or {})["provenance"])
            for name in file.keys():  # noqa: SIM118  (it is no dict)
                part, _, leaf = name.partition("/")
                parts[part][leaf] = file.get_tensor(name)
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged, or no ticket of lotto_jax ({error}); export it again.") from error
    params = parts["params"]
    if like is not None:
        check(params, like, path)
    mask = {leaf: parts["mask"].get(leaf, np.True_) for leaf in params}
    if like is None:
        return LoadedTicket(_nested(params), _nested(mask), _nested(parts["model_state"]), provenance)
    fill = lambda leaves: jax.tree_util.tree_map_with_path(lambda p, _: leaves[masks.path_name(p)], like)  # noqa: E731
    return LoadedTicket(fill(params), fill(mask), _nested(parts["model_state"]), provenance)


def check(params: Mapping[str, np.ndarray], like: PyTree, path: str | Path) -> None:
    """Raise ValueError, naming the first leaf that differs, unless params of a ticket fit the network `like`."""
    expected = {masks.path_name(p): x for p, x in jax.tree_util.tree_leaves_with_path(like)}
    for leaf, array in expected.items():
        if leaf not in params:
            raise ValueError(
                f"The ticket {path} has no leaf {leaf!r}, which the network has; take one of such a network."
            )
        if params[leaf].shape != array.shape:
            raise ValueError(
                f"The ticket {path} has shape {params[leaf].shape} at {leaf!r}, where the network has {array.shape}; "
                "take one of a network of this size."
            )
    if extra := [leaf for leaf in params if leaf not in expected]:
        raise ValueError(
            f"The ticket {path} has a leaf {extra[0]!r} that the network lacks; take one of such a network."
        )


def export(workdir: str | Path, name: str, path: str | Path) -> None:
    """Write a ticket of a run into a file.

    Args:
      workdir: the run directory.
      name: of the ticket (`runs.tickets.names` lists them).
      path: the file.

    Raises:
      StorageError: if the state that it starts from is damaged; running the configuration again repairs it.
      ValueError: if there is no such run or ticket.
    """
    workdir = Path(workdir)
    config = directories.config_of(workdir)
    packed, provenance = tickets.read(workdir, name)
    store = checkpoints.Store(workdir / kept.CHECKPOINTS / kept.SNAPSHOTS, alone=True)
    try:
        states = store.restore(provenance["start"])
    finally:
        store.close()
    own = jax.tree.map(lambda x: np.asarray(x[list(config.seeds).index(provenance["seed"])]), _fields(states))
    params, model_state = _flat(own["params"]), own["model_state"]
    model_state = {key: value for key, value in model_state.items() if key != detection.COLLECTION}
    mask = {leaf: _unpacked(bits, params[leaf].shape) for leaf, bits in packed.items()}
    tensors = {f"params/{leaf}": array for leaf, array in params.items()}
    tensors |= {f"model_state/{leaf}": array for leaf, array in _flat(model_state).items()}
    tensors |= {f"mask/{leaf}": array for leaf, array in mask.items()}
    provenance = {"model": config.model.to_dict(), "dataset": config.dataset.name, **provenance}
    contiguous = {key: np.ascontiguousarray(array) for key, array in tensors.items()}
    write_atomically(Path(path), save(contiguous, metadata={"provenance": json.dumps(provenance)}))


def show(ticket: LoadedTicket) -> str:
    """Provenance, and what is left in every leaf, as text."""
    lines = [f"{key}: {value}" for key, value in ticket.provenance.items()]
    params, mask = _flat(ticket.params), _flat(ticket.mask)
    width = max(map(len, params))
    lines += ["", f"{'leaf'.ljust(width)}  {'shape':>20}  {'left':>12}"]
    for leaf, array in params.items():
        count = int(np.sum(mask[leaf])) if np.ndim(mask[leaf]) else array.size
        lines.append(f"{leaf.ljust(width)}  {array.shape!s:>20}  {count:>12,}  {count / array.size:.1%}")
    return "\n".join(lines)


def _fields(states: Any) -> dict[str, Any]:
    return {field: states[field] if isinstance(states, Mapping) else getattr(states, field) for field in PARTS[:2]}


def _unpacked(bits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.unpackbits(bits, count=int(np.prod(shape))).astype(bool).reshape(shape)


def _flat(tree: PyTree) -> dict[str, Any]:
    return {masks.path_name(p): x for p, x in jax.tree_util.tree_leaves_with_path(tree)}


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in leaves.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree
