"""How many weights pruning left in every layer."""

import jax
from jaxtyping import Array, Int

from lotto_jax.analysis import ALL, layers
from lotto_jax.pruning import masks


@jax.jit
def weights(mask: masks.Mask) -> dict[str, Int[Array, ""]]:
    """Kept entries of every prunable leaf, int32, and of all.

    Args:
      mask: of one ticket.
    """
    counts = {name: masks.count_true(m) for name, (m,) in layers.of(mask).items()}
    return counts | {ALL: masks.num_kept(mask)}
