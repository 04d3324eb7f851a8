"""Tickets as files: mask, rewound weights and provenance in one safetensors file that any JAX program can start from.

The file holds the tensors `params/<leaf>` and `model_state/<leaf>`, the state that the ticket starts from, and
`mask/<leaf>`, boolean, for the leaves that are pruned; its metadata have the provenance as JSON under `provenance`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lotto_jax.pruning import channels, masks
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
    [ticket] = of_run(Path(workdir), [name])
    params = _flat(ticket.params)
    mask = {leaf: keep for leaf, keep in _flat(ticket.mask).items() if np.ndim(keep)}
    tensors = {f"params/{leaf}": array for leaf, array in params.items()}
    tensors |= {f"model_state/{leaf}": array for leaf, array in _flat(ticket.model_state).items()}
    tensors |= {f"mask/{leaf}": array for leaf, array in mask.items()}
    contiguous = {key: np.require(array, requirements="C") for key, array in tensors.items()}
    write_atomically(Path(path), save(contiguous, metadata={"provenance": json.dumps(ticket.provenance)}))


def of_run(workdir: Path, names: Sequence[str]) -> list[LoadedTicket]:
    """Tickets of a run, whose rewound weights are in its snapshots, in `LoadedTicket`'s nested dicts of NumPy arrays.

    Args:
      workdir: the run directory.
      names: of the tickets (`runs.tickets.names` lists them); tickets of one snapshot read it once.

    Raises:
      StorageError: if the state that one starts from is damaged; running the configuration again repairs it.
      ValueError: if there is no such run or ticket.
    """
    config = directories.config_of(workdir)
    stored = [tickets.read(workdir, name) for name in names]
    store = checkpoints.Store(workdir / kept.CHECKPOINTS / kept.SNAPSHOTS, alone=True)
    try:
        snapshots = {step: _fields(store.restore(step)) for step in {provenance["start"] for _, provenance in stored}}
    finally:
        store.close()
    return [_ticket(config, packed, entries, snapshots[entries["start"]]) for packed, entries in stored]


def _ticket(
    config: ConfigDict, packed: Mapping[str, np.ndarray], provenance: dict[str, Any], snapshot: dict[str, Any]
) -> LoadedTicket:
    """One ticket of a run from its packed mask, its provenance, and the states of all seeds that it starts from."""
    own = jax.tree.map(lambda x: np.asarray(x[list(config.seeds).index(provenance["seed"])]), snapshot)
    params, model_state = _flat(own["params"]), own["model_state"]
    model_state = {key: value for key, value in model_state.items() if key != detection.COLLECTION}
    mask = {leaf: _unpacked(bits, params[leaf].shape) for leaf, bits in packed.items()}
    if provenance["unit"] == "channels":  # a masked channel loses its shift too
        mask = {leaf: np.asarray(keep) for leaf, keep in channels.masked_leaves(params, dict(mask)).items()}
    provenance = {"model": config.model.to_dict(), "dataset": config.dataset.name, **provenance}
    whole = {leaf: mask.get(leaf, np.True_) for leaf in params}
    return LoadedTicket(_nested(params), _nested(whole), model_state, provenance)


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
