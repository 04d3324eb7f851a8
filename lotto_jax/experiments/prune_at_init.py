"""Masks found before training, by SNIP and GraSP: arms of a round, and an experiment of their own (Table 2)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from lotto_jax import pruning
from lotto_jax.experiments import dense, selections
from lotto_jax.experiments.arms import Arm, Round, stacks_of, work
from lotto_jax.experiments.protocol import Experiment, Phase, Start
from lotto_jax.objectives.state import Batch, Objective, TrainState
from lotto_jax.pruning import saliency
from lotto_jax.reports import convergence, sections
from lotto_jax.training import streams
from lotto_jax.training.feed import Feed
from lotto_jax.training.streams import Stream

if TYPE_CHECKING:
    from lotto_jax.experiments.runner import Run

SCORERS = {"snip": saliency.snip, "grasp": saliency.grasp}


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
    keys = jax.random.split(streams.key(state.key, Stream.SCORES), batches.image.shape[0])
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


def _tickets(run: Run, here: Round, arm: str) -> tuple[TrainState, pruning.Mask]:
    """The dense networks' initialization, as sparse as the winning tickets of the round."""
    batches = run.feed.first_batches(run.fresh.key, run.config.imp.score_batches, run.placement)
    return run.fresh, find(run.objective, arm, run.fresh, run.ones(here.pruned), batches, here.sparsity)


ARMS = {name: Arm("initialization", functools.partial(_tickets, arm=name)) for name in SCORERS}


def check_arms(config: ConfigDict) -> None:
    """Raise ValueError on an arm whose scores the precision cannot hold."""
    for arm in set(config.imp.arms) & SCORERS.keys():
        if config.precision == "float16":
            raise ValueError(
                f"config.imp.arms holds {arm!r}, whose scores get lost in float16; set config.precision to bfloat16."
            )


def check(config: ConfigDict, objective: Objective, feed: Feed) -> None:
    """Raise ValueError on the first field of `config.imp` that makes no sense."""
    del feed
    selections.check_arms(config, ARMS)
    check_arms(config)
    selections.check_rounds(config, objective)


def phases(run: Run) -> list[Phase]:
    """The dense networks, then for every round the tickets that are as sparse as winning ones would be."""
    arms = {name: ARMS[name] for name in run.config.imp.arms}

    def round_of(number: int) -> Phase:
        def start() -> Start:
            rounds = []
            for j, pruned in enumerate(run.config.imp.pruned):
                ones = run.ones(pruned)
                weights = pruning.num_prunable(jax.tree.map(lambda m: m[0], ones))
                sparsity = selections.sparsity_after(weights, run.config, number)
                everywhere = jnp.full(len(run.seeds), sparsity, jnp.float32)
                salt = selections.salt(run.config, number, j)
                rounds.append(Round(pruned, number, salt, ones, everywhere, run.fresh))
            head, _ = stacks_of(run, arms, rounds)
            return Start(run.objective, head)

        title = f"round {number} of {run.config.imp.rounds}"
        choices = len(run.config.imp.pruned)
        tickets = choices * len(arms) * len(run.seeds)
        return Phase(title, start, tickets, work(run, arms, choices, run.steps), measured="every")

    return [dense.phase(run), *map(round_of, range(1, run.config.imp.rounds + 1))]


EXPERIMENT = Experiment(
    check,
    phases,
    figures=(sections.metrics, convergence.stability, sections.curves, convergence.convergence),
    reads=("imp.rounds", "imp.fraction", "imp.pruned", "imp.arms", "imp.score_batches"),
)
