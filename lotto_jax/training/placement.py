"""Where the tickets of a phase lie: the mesh, and how they share its program."""

from typing import NamedTuple, cast

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree

from lotto_jax.objectives.state import Objective
from lotto_jax.training import checkpoints, hosts, loop, mesh


class Placement(NamedTuple):
    """The mesh of a phase and how tickets share the program on it (`loop.over_tickets`)."""

    mesh: Mesh
    parallel: loop.Parallel

    def place(self, tree: PyTree) -> PyTree:
        """Split a stacked tree over the ticket axis."""
        return hosts.place(tree, mesh.by_ticket(self.mesh))

    def like(self, tree: PyTree) -> PyTree:
        """What `checkpoints.Store.restore` needs to bring arrays like those of `tree` onto the mesh."""
        return checkpoints.like(tree, mesh.by_ticket(self.mesh))

    @property
    def abreast(self) -> int:
        """Tickets that train at the same time on devices of their own."""
        return self.mesh.shape["ticket"]


def choose(wanted: str, objective: Objective, tickets: int, batch_size: int) -> Placement:
    """The placement of stacks whose length is a multiple of `tickets`.

    Args:
      wanted: `config.parallel.tickets`. `auto` is by measurement (`scripts/bench.py tickets`): dense layers are fastest
        with all tickets in one product; convolutions become grouped ones, and are faster ticket by ticket on a CPU.
      objective: whose networks train.
      tickets: what the ticket axis of the mesh must divide.
      batch_size: what its data axis must divide.
    """
    parallel = _automatic(objective) if wanted == "auto" else cast(loop.Parallel, wanted)
    return Placement(mesh.make(1 if parallel == "sequential" else tickets, batch_size), parallel)


def _automatic(objective: Objective) -> loop.Parallel:
    state = jax.eval_shape(objective.init, jax.random.key(0))
    if not any(leaf.ndim == 4 for leaf in jax.tree.leaves(state.params)):
        return "vmap"
    return "sharded" if jax.device_count() > 1 else "sequential"
