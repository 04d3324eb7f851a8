"""Small operations on stacked trees, jitted because each array operation would compile by itself otherwise."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt8

from lotto_jax import pruning
from lotto_jax.objectives.state import TrainState
from lotto_jax.pruning import masks
from lotto_jax.training import hosts


@jax.jit
def concatenate(trees: list[PyTree]) -> PyTree:
    """Stacked trees one after the other on the ticket axis."""
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), *trees)


@jax.jit
def take(tree: PyTree, chosen: Int[Array, "*chosen"]) -> PyTree:
    """The tickets with these numbers; with a scalar the ticket itself, without the axis."""
    return jax.tree.map(lambda x: x[chosen], tree)


@jax.jit
def pack(mask: masks.Mask) -> list[UInt8[Array, "tickets bytes"]]:
    """Stacked masks as bits: prunable leaves only, [tickets, ceil(size / 8)]."""
    return [jnp.packbits(m.reshape(m.shape[0], -1), axis=1) for m in jax.tree.leaves(mask) if m.ndim > 1]


@jax.jit
def unpack(packed: list[UInt8[Array, "tickets bytes"]], like: masks.Mask) -> masks.Mask:
    """The inverse of `pack`; stacked masks `like` (of any number of tickets) give structure and shapes."""
    leaves, structure = jax.tree.flatten(like)
    bits, tickets = iter(packed), packed[0].shape[0]

    def restore(m: Array) -> Array:
        if m.ndim == 1:
            return jnp.ones(tickets, bool)
        shape = m.shape[1:]
        return jnp.unpackbits(next(bits), axis=1, count=math.prod(shape)).astype(bool).reshape(tickets, *shape)

    return jax.tree.unflatten(structure, [restore(m) for m in leaves])


@jax.jit
def masked(states: TrainState, mask: masks.Mask) -> TrainState:
    """A copy of states, which may be donated, with pruned params set to 0: where a ticket starts."""
    return jax.tree.map(jnp.copy, states._replace(params=jax.vmap(masks.apply)(states.params, mask)))


@jax.jit
def whole(mask: masks.Mask, full: masks.Mask) -> masks.Mask:
    """Stacked masks with the leaves of `full`: scalars of kernels that are not prunable become all True."""

    def widen(m: Array, f: Array) -> Array:
        return m if m.ndim == f.ndim else jnp.broadcast_to(m.reshape(-1, *[1] * (f.ndim - 1)), f.shape)

    return jax.tree.map(widen, mask, full)


@jax.jit
def removed(mask: masks.Mask) -> Int[Array, "tickets"]:
    """Pruned entries of every ticket."""
    return jax.vmap(lambda m: pruning.num_prunable(m) - pruning.num_kept(m))(mask)


@jax.jit
def sparsity(mask: masks.Mask) -> Float[Array, "tickets"]:
    """Of what is prunable, for every ticket."""
    return jax.vmap(pruning.sparsity)(mask)


@jax.jit
def _left(mask: masks.Mask) -> PyTree[Bool[Array, ""]]:
    """For every leaf, whether each ticket has an entry left."""
    return jax.tree.map(lambda m: jnp.all(jnp.any(m.reshape(m.shape[0], -1), axis=1)), mask)


def emptied(mask: masks.Mask) -> list[str]:
    """Kernels of which some ticket has nothing left, so that no signal passes (layer collapse; Tanaka et al. 2020)."""
    left = hosts.gathered(_left(mask))
    return [pruning.path_name(path) for path, kept in jax.tree_util.tree_leaves_with_path(left) if not kept]
