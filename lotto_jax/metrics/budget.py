"""Compaction to a budget of FLOPs or params."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from lotto_jax import pruning
from lotto_jax.metrics import flops as counter
from lotto_jax.pruning.compaction import Compacted


def compact_to(
    fn: Callable[..., PyTree],
    variables: PyTree,
    scores: Mapping[str, Float[Array, "size"]],
    *inputs: PyTree,
    flops: float | None = None,
    params: float | None = None,
    minimum: int = 1,
) -> Compacted:
    """Remove the channels of lowest score until a share of the FLOPs or of the params is left, and no more than needed.

    Channels go in the order of their scores over all groups, each group keeping `minimum`. The result meets the budget,
    and with one channel fewer removed it would not. The search halves the number of channels removed, and counts the
    network `result.resized(fn)` by `flops.count`, or the entries of what lies under "params" (of all variables, where
    nothing does). Ties are broken by position.

    Args:
      fn: the network's forward function in inference mode, returning its outputs only.
      variables: its first argument; they are sliced, so the masked network to compare with is
        `mask_channels(groups, variables, result.mask)`.
      scores: `{group name: [size]}` of `pruning.channel_scores(pruning.axis_groups(fn, variables, *inputs), ...)`,
        not negative.
      *inputs: the other arguments of `fn`, arrays or `jax.ShapeDtypeStruct`; FLOPs are those of this batch.
      flops: share of the FLOPs to keep at most, in (0, 1).
      params: share of the params to keep at most, in (0, 1).
      minimum: channels that every group keeps at least.

    Raises:
      ValueError: unless one share of the two is given, if it is outside (0, 1), or if it cannot be reached.

    >>> scores = pruning.channel_scores(pruning.axis_groups(model.apply, variables, images), variables)
    >>> small = compact_to(model.apply, variables, scores, images, flops=0.5)
    """
    if (flops is None) == (params is None):
        raise ValueError("Give one budget to compact_to: flops or params, as a share of the network's.")
    share = flops if flops is not None else params
    if share is None or not 0 < share < 1:
        raise ValueError(f"The budget is {share}; the share to keep must lie in (0, 1).")
    total = sum(x.size for x in scores.values())

    def compacted(count: int) -> Compacted:
        mask = pruning.channel_mask(scores, count / total, minimum)
        return pruning.compact(fn, variables, mask, *inputs)

    def cost(small: Compacted) -> int:
        if flops is None:
            tree = small.variables[small.params] if small.params else small.variables
            return sum(np.size(x) for x in jax.tree.leaves(tree))
        return counter.count(small.resized(fn), small.variables, *inputs).total

    budget = share * cost(compacted(0))
    low, high = 0, sum(max(x.size - minimum, 0) for x in scores.values())  # too few channels removed, enough
    best = compacted(high)
    if cost(best) > budget:
        raise ValueError(
            f"Removing all channels but {minimum} of each group leaves {cost(best) / (budget / share):.3g} of the "
            f"{'params' if flops is None else 'FLOPs'}; the budget {share} cannot be reached."
        )
    while high - low > 1:
        middle = (low + high) // 2
        candidate = compacted(middle)
        if cost(candidate) <= budget:
            high, best = middle, candidate
        else:
            low = middle
    return best
