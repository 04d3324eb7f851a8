"""Where the tickets of a phase lie: the mesh, and how they share its program."""

import functools
from collections.abc import Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from lotto_jax.objectives.state import Objective
from lotto_jax.training import checkpoints, hosts, loop, mesh


class Placement(NamedTuple):
    """The mesh of a phase and how tickets share the program on it (`loop.over_tickets`)."""

    mesh: Mesh
    parallel: loop.Parallel

    def sharding(self, tickets: int) -> NamedSharding:
        """Of a stack of so many tickets: split over the ticket axis if it divides them, else a copy on every device."""
        return mesh.replicated(self.mesh) if tickets % self.abreast else mesh.by_ticket(self.mesh)

    def place(self, tree: PyTree) -> PyTree:
        """Bring a stacked tree onto the mesh, see `sharding`."""
        return hosts.place(tree, self.sharding(_length(tree)))

    def like(self, tree: PyTree) -> PyTree:
        """What `checkpoints.Store.restore` needs to bring arrays of the shapes of `tree` onto the mesh."""
        return checkpoints.like(tree, self.sharding(_length(tree)))

    def fill(self, tree: PyTree) -> PyTree:
        """A stacked tree split over the ticket axis, with copies of its last ticket behind it up to a full share of
        every device.
        """
        tickets = _length(tree)
        if rest := -tickets % self.abreast:
            tree = _filled(self.place(tree), rest, mesh.by_ticket(self.mesh))
        return self.place(tree)

    def empty(self, tree: PyTree, tickets: int) -> PyTree:
        """The first so many tickets of a tree that was filled."""
        return tree if _length(tree) == tickets else _first(tree, tickets, mesh.replicated(self.mesh))

    @property
    def abreast(self) -> int:
        """Tickets that train at the same time on devices of their own."""
        return self.mesh.shape["ticket"]

    def idle(self, tickets: int, devices: int) -> float:
        """Share of the time of so many devices in which they have nothing to do, or only a copy of a ticket."""
        turns = -(-tickets // self.abreast)
        return 1 - tickets * self.mesh.shape["data"] / (turns * devices)


def _length(tree: PyTree) -> int:
    return jax.tree.leaves(tree)[0].shape[0]


@functools.partial(jax.jit, static_argnums=(1, 2))
def _filled(tree: PyTree, rest: int, sharding: NamedSharding) -> PyTree:
    fill = lambda x: jnp.concatenate([x, jnp.broadcast_to(x[-1:], (rest, *x.shape[1:]))])  # noqa: E731
    return lax.with_sharding_constraint(jax.tree.map(fill, tree), sharding)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _first(tree: PyTree, tickets: int, sharding: NamedSharding) -> PyTree:
    return lax.with_sharding_constraint(jax.tree.map(lambda x: x[:tickets], tree), sharding)


def choose(
    wanted: str, objective: Objective, tickets: int, batch_size: int, devices: Sequence[jax.Device] = ()
) -> Placement:
    """The placement of a stack of tickets.

    Args:
      wanted: `config.parallel.tickets`. `auto` is by measurement on a CPU (`scripts/bench.py tickets`), by the
        compiler's estimate on a TPU, and by the compiled program on a GPU (tests/pods): dense layers are fastest with
        all tickets in one product; convolutions would become grouped ones, and are faster ticket by ticket.
      objective: whose networks train.
      tickets: in the stack.
      batch_size: what the data axis must divide.
      devices: where tickets may train; empty for all that are here.
    """
    count = len(devices or jax.devices())
    parallel = _automatic(objective, count) if wanted == "auto" else cast(loop.Parallel, wanted)
    return Placement(mesh.make(1 if parallel == "sequential" else tickets, batch_size, among=devices), parallel)


def _automatic(objective: Objective, devices: int) -> loop.Parallel:
    state = jax.eval_shape(objective.init, jax.random.key(0))
    if not any(leaf.ndim == 4 for leaf in jax.tree.leaves(state.params)):
        return "vmap"
    return "sharded" if devices > 1 else "sequential"
