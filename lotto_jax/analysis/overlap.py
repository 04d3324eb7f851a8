"""How far two masks keep the same weights, and how far two masks would by chance."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lotto_jax.analysis import ALL, layers
from lotto_jax.pruning import masks


class Overlap(NamedTuple):
    """Of one layer or of all.

    Attributes:
      jaccard: entries that both masks keep, over entries that one of them keeps; NaN where none does.
      expected: the same ratio by chance.
    """

    jaccard: Float[Array, ""]
    expected: Float[Array, ""]


@jax.jit
def overlap(a: masks.Mask, b: masks.Mask) -> dict[str, Overlap]:
    """The Jaccard index of two masks, of every prunable leaf and of all together.

    By chance masks with as many entries in a leaf, k and l of n, share k l / n of them on average, whatever the sizes
    of the other leaves: masks that agree in no more than how much of each layer they keep are at chance. `expected` is
    the ratio of the averages, which the average of the ratios is close to where leaves are large.

    Args:
      a: boolean, of one ticket.
      b: of the same structure and shapes.
    """
    found, sums = {}, [jnp.zeros(())] * 3
    for name, (one, other) in layers.of(a, b).items():
        k, m = (masks.count_true(x).astype(jnp.float32) for x in (one, other))
        counts = [masks.count_true(one & other).astype(jnp.float32), k * m / one.size, k + m]
        found[name] = _ratios(*counts)
        sums = [total + count for total, count in zip(sums, counts, strict=True)]
    return found | {ALL: _ratios(*sums)}


def _ratios(both: Array, by_chance: Array, kept: Array) -> Overlap:
    return Overlap(both / (kept - both), by_chance / (kept - by_chance))
