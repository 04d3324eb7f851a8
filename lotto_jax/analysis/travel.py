"""How far weights travel while a ticket trains."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lotto_jax.analysis import ALL, layers
from lotto_jax.pruning import masks


class Distance(NamedTuple):
    """Of one layer or of all.

    Attributes:
      euclidean: L2 norm of the difference of the kept weights.
      relative: over the L2 norm of the kept weights at the start; NaN where nothing is kept.
    """

    euclidean: Float[Array, ""]
    relative: Float[Array, ""]


@jax.jit
def distance(start: masks.Params, end: masks.Params, mask: masks.Mask) -> dict[str, Distance]:
    """From where a ticket starts to where it ends, of every prunable leaf and of all together.

    Pruned weights do not count: their way from the start to 0 is pruning, not training.

    Args:
      start: float arrays of one network.
      end: of the same structure and shapes.
      mask: of the ticket.
    """
    found, sums = {}, [jnp.zeros(())] * 2
    for name, (kept, x, y) in layers.of(mask, start, end).items():
        squares = [jnp.sum(jnp.square(jnp.where(kept, z, 0.0))) for z in (y - x, x)]
        found[name] = _roots(*squares)
        sums = [total + square for total, square in zip(sums, squares, strict=True)]
    return found | {ALL: _roots(*sums)}


def _roots(way: Array, norm: Array) -> Distance:
    return Distance(jnp.sqrt(way), jnp.sqrt(way / norm))
