"""What a ticket is called and counted by, and tickets/<name>/: its mask and where it comes from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lotto_jax.pruning import masks
from lotto_jax.runs.files import DamagedError, read_json, read_sealed, write_sealed
from lotto_jax.runs.results import Result

TICKETS, MASK, PROVENANCE, IMPORTED = "tickets", "mask.safetensors", "provenance.json", "imported"


class Ticket(NamedTuple):
    """What one entry of the ticket axis is.

    Attributes:
      pruned: `both`, or the component that is pruned.
      level: how far it is pruned, counted from 0 for the dense network: the round of iterative pruning, or the number
        of an early bird's compression. Column `round` of results.csv.
      arm: how it begins: `dense`, `winning`, `random`, ...
      seed: of its initialization, batches and noise.
      removed: share that is removed, of the whole network's `unit`. Column `sparsity` of results.csv.
      unit: what `removed` is a share of: prunable `weights`, or batch-norm `channels`.
    """

    pruned: str
    level: int
    arm: str
    seed: int
    removed: float
    unit: str = "weights"

    @property
    def name(self) -> str:
        """Unique within a run."""
        removed = f"-{self.removed:.6f}" if self.arm == "one_shot" else ""
        return f"{self.pruned}-{self.arm}{removed}-round{self.level:02d}-seed{self.seed}"

    def columns(self) -> dict[str, Any]:
        """As results.csv and metrics.jsonl have it."""
        return {
            "pruned": self.pruned,
            "round": self.level,
            "arm": self.arm,
            "seed": self.seed,
            "sparsity": self.removed,
        }

    def result(self, config: ConfigDict, step: int, metric: str, value: float) -> Result:
        """A measurement of it after training."""
        return Result(
            experiment=config.experiment,
            model=config.model.name,
            dataset=config.dataset.name,
            **self.columns(),
            step=step,
            metric=metric,
            value=value,
        )


def write(path: Path, ticket: Ticket, mask: masks.Mask, provenance: Mapping[str, Any]) -> None:
    """Store a ticket's bit-packed mask, and where it comes from, in tickets/<name>/ of a run directory.

    Args:
      path: of the run.
      ticket: whose name the directory has.
      mask: of one ticket, not stacked.
      provenance: what the ticket's own columns do not say.
    """
    directory = path / TICKETS / ticket.name
    directory.mkdir(parents=True, exist_ok=True)
    entries = {"name": ticket.name, **ticket.columns(), "unit": ticket.unit, **provenance}
    write_sealed(directory / MASK, save(masks.pack(mask)))
    write_sealed(directory / PROVENANCE, json.dumps(entries, indent=2) + "\n")


def names(path: Path) -> list[str]:
    """Names of the tickets of a run, sorted."""
    return sorted(p.parent.name for p in (path / TICKETS).glob(f"*/{PROVENANCE}"))


def read(path: Path, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The packed mask (`pruning.unpack` takes it) and the provenance of a ticket of a run.

    Raises:
      ValueError: if there is no such ticket, or it is damaged.
    """
    directory = path / TICKETS / name
    try:
        return load(read_sealed(directory / MASK)), read_json(directory / PROVENANCE)
    except FileNotFoundError:
        there = names(path)
        listed = f"it has {', '.join(there[:3])}{', ...' if len(there) > 3 else ''}" if there else "it has none"
        raise ValueError(f"The run in {path} has no ticket {name!r}; {listed}.") from None
    except SafetensorError as error:
        raise DamagedError(directory / MASK, str(error)) from error
