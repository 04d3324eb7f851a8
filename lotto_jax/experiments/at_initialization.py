"""Masks that are found before training, by SNIP and GraSP: the arms `snip` and `grasp` (Table 2)."""

import functools

import jax
from jax import lax
from jaxtyping import Array, Float

from lotto_jax import pruning
from lotto_jax.objectives.state import Batch, Objective, TrainState
from lotto_jax.pruning import saliency

SCORERS = {"snip": saliency.snip, "grasp": saliency.grasp}
NOISE = 5  # stream of the noise that the losses draw, beside those of training.loop, imp and measure


def mask_of(
    objective: Objective,
    arm: str,
    state: TrainState,
    mask: pruning.Mask,
    batches: Batch,
    sparsity: Float[Array, ""],
) -> pruning.Mask:
    """The mask of `sparsity` that keeps the weights with the highest scores, before any is trained.

    Every loss ranks the weights of its own components, all of them together: an autoencoder's are pruned to `sparsity`
    as a whole, the generator and the discriminator of a GAN each to `sparsity`. A generator's loss says nothing of what
    a discriminator's weight is worth, so their scores are not compared.

    Args:
      objective: whose `losses` are taken, in training mode.
      arm: a key of `SCORERS`.
      state: of one ticket, at initialization.
      mask: what may be pruned.
      batches: leaves [batches, batch, ...], of the ticket's own training examples; the loss is their mean.
      sparsity: of the prunable weights.
    """
    keys = jax.random.split(jax.random.fold_in(state.key, NOISE), batches.image.shape[0])
    found = dict(mask)
    for components, value in objective.losses:
        own_mask = {name: mask[name] for name in components}
        if not pruning.num_prunable(own_mask):
            continue

        def loss(own, inputs, value=value):
            return value({**state.params, **own}, state.model_state, *inputs)

        own = {name: state.params[name] for name in components}
        scores = SCORERS[arm](saliency.mean_over(loss, (batches, keys)), own)
        found |= pruning.prune_to_sparsity(scores, own_mask, sparsity)
    return found


@functools.partial(jax.jit, static_argnames=("objective", "arm"))
def find(
    objective: Objective,
    arm: str,
    states: TrainState,
    mask: pruning.Mask,
    batches: Batch,
    sparsity: Float[Array, "tickets"],
) -> pruning.Mask:
    """`mask_of` every ticket; all leaves have the ticket axis in front."""
    return lax.map(lambda ticket: mask_of(objective, arm, *ticket), (states, mask, batches, sparsity))
