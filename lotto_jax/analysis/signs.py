"""How many weights have the same sign in two networks (signs of a ticket's start: Zhou et al., NeurIPS 2019)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lotto_jax.analysis import ALL, layers
from lotto_jax.pruning import masks


@jax.jit
def agreement(a: masks.Params, b: masks.Params, mask: masks.Mask) -> dict[str, Float[Array, ""]]:
    """Share of the kept weights whose signs agree, of every prunable leaf and of all together; NaN where none is kept.

    Unrelated networks agree in half of them. A weight that is 0 in one of them only counts as another sign.

    Args:
      a: float arrays of one network.
      b: of the same structure and shapes.
      mask: which weights are compared: those that a ticket keeps, or that two tickets keep both.
    """
    found, total = {}, jnp.zeros(())
    for name, (kept, x, y) in layers.of(mask, a, b).items():
        same = masks.count_true(kept & (jnp.sign(x) == jnp.sign(y))).astype(jnp.float32)
        found[name] = same / masks.count_true(kept)
        total += same
    return found | {ALL: total / masks.num_kept(mask)}
