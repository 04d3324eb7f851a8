"""From a trained state and a channel mask to a smaller train state.

Networks with batch norm lose single channels. A channel of a norm group cannot go by itself, since the others are
normalized by its values, too; so networks with group norm lose whole norm groups, of those norms whose channels no
other norm sees. In a UNet these are the second norms of the residual blocks, and the last norm.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from lotto_jax import pruning
from lotto_jax.models import compacted
from lotto_jax.objectives import averaging
from lotto_jax.objectives.state import Batch, Objective, TrainState
from lotto_jax.pruning import channels, compaction, dependency


class NormGroup(NamedTuple):
    """The norm groups of one norm: the group of `axis_groups` whose channels they are, and the channels of each."""

    name: str
    size: int


def of_any_width(objective: Objective) -> Objective:
    """The objective whose functions also take compacted states; its `init` makes states of full width."""
    return objective.wrapped(compacted.following)


def _evaluation(objective: Objective) -> Callable[..., PyTree]:
    """The function of `(variables, batch, key)` that is walked."""

    def fn(variables: PyTree, batch: Batch, key: PyTree) -> PyTree:
        rest = {name: collection for name, collection in variables.items() if name != "params"}
        return objective.evaluate(variables["params"], rest, batch, key)

    return fn


def channel_groups(objective: Objective, batch: Batch) -> dependency.AxisGroups:
    """The axes of `{"params": params, **model_state}` that go, or change places, together.

    Args:
      objective: of float32.
      batch: arrays or shapes.
    """
    state = jax.eval_shape(objective.init, jax.random.key(0))
    # Without the average, which evaluation would see in place of the params.
    variables = {"params": state.params, **averaging.without(state.model_state)}
    return pruning.axis_groups(_evaluation(objective), variables, batch, state.key)


def norm_groups(objective: Objective, batch: Batch) -> dict[str, NormGroup]:
    """The norm groups that can go, by name of the scale; none where a network has batch statistics, or no scales.

    Args:
      objective: of float32.
      batch: arrays or shapes.
    """
    state = jax.eval_shape(objective.init, jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    scales = {pruning.path_name(path): leaf for path, leaf in leaves if channels.is_scale(path, leaf)}
    if "batch_stats" in state.model_state or not scales:
        return {}
    found = {}
    for name, group in channel_groups(objective, batch).named.items():
        norms = [leaf for leaf, _ in group.axes if leaf.removeprefix("params/") in scales]
        if len(norms) == 1 and group.size > 1:
            scale, places = norms[0].removeprefix("params/"), group.axes[norms[0], 0]
            if places.size == scales[scale].size and np.all(np.diff(places.reshape(-1)) == 1):
                found[scale] = NormGroup(name, places.shape[1])
    return found


def compact(
    objective: Objective,
    state: TrainState,
    mask: channels.ChannelMask,
    batch: Batch,
    fresh: bool,
    round_to: int = 1,
) -> tuple[TrainState, compaction.Compacted]:
    """The smaller state that computes what `state` computes with `mask` applied, and what was removed.

    Args:
      objective: whose evaluation is walked to see which axes shrink together; of float32, since emulated formats
        scale by the maximum of a whole kernel, which ties all its channels together.
      state: of a single ticket, of full width.
      mask: over batch-norm scales, or over the `norm_groups` of a network without batch norm; names relative to params.
      batch: arrays or shapes.
      fresh: whether the optimizer starts anew, or goes on with its moments of the channels that are left.
      round_to: see `pruning.compact`; of norm groups, these are what is counted.
    """
    fn, rest = _evaluation(objective), averaging.without(state.model_state)
    if norms := norm_groups(objective, batch):
        grouped = {norms[name].name: keep for name, keep in mask.items()}
        small = pruning.compact(fn, {"params": state.params, **rest}, grouped, batch, state.key, round_to=round_to)
        left = {name: jnp.repeat(small.mask[norms[name].name], norms[name].size) for name in mask}
        small = small._replace(mask=left)
    else:
        variables = {"params": pruning.apply_channel_mask(state.params, mask), **rest}
        small = pruning.compact(fn, variables, mask, batch, state.key, round_to=round_to)
    params, model_state = small.variables["params"], {k: v for k, v in small.variables.items() if k != "params"}
    averages = {k: v for k, v in state.model_state.items() if k == averaging.COLLECTION}
    # Moments start at zeros whatever the params are, so a full network's are sliced to a smaller network's.
    opt_state = fresh_optimizer(objective, state.key) if fresh else state.opt_state
    model_state |= small.shrink(averages)
    return TrainState(params, model_state, small.shrink(opt_state), state.step, state.key), small


def fresh_optimizer(objective: Objective, key: Key[Array, ""]) -> PyTree:
    """The optimizer state that a training of full width begins with; the params are not computed."""
    return jax.jit(lambda key: objective.init(key).opt_state)(key)
