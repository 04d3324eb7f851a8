"""A ticket of an early-bird search: what is left of the dense network where its mask settled, trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from lotto_jax import pruning
from lotto_jax.experiments import compacting, costs
from lotto_jax.experiments.early_bird_search import Origin
from lotto_jax.experiments.protocol import Phase, Record, Stack, Start, Trained
from lotto_jax.metrics import flops
from lotto_jax.objectives import loss_scale
from lotto_jax.objectives.state import TrainState
from lotto_jax.pruning import compaction
from lotto_jax.runs.tickets import Ticket
from lotto_jax.training import detection, hosts, stacks

if TYPE_CHECKING:
    from lotto_jax.experiments.early_bird import EarlyBirds


def cut(birds: EarlyBirds, ticket: Ticket, origin: Origin) -> tuple[TrainState, TrainState, compaction.Compacted]:
    """The dense state that a ticket starts from, the compacted one, and how they differ."""
    states = jax.device_put(hosts.gathered(birds.run.snapshot(origin.step)), jax.local_devices()[0])
    state = stacks.take(states, jnp.int32(birds.run.seeds.index(ticket.seed)))
    masks = state.model_state[detection.COLLECTION].masks
    mask = {name: keep[ticket.level - 1] for name, keep in masks.items()}
    dense, walked = detection.unwatched(state), birds.run.build(precision="float32")
    fresh, round_to = birds.config.optimizer == "fresh", birds.config.round_to
    return dense, *compacting.compact(walked, dense, mask, birds.run.feed.batch, fresh, round_to)


def looking(birds: EarlyBirds, state: TrainState) -> int:
    """FLOPs of one look for one ticket."""
    one = birds.search._replace(compressions=birds.search.compressions[:1])
    return flops.count(one.look, one.init(state.params), one.scales(state.params), state.step).total


class Bird:
    """The phase of one ticket."""

    def __init__(self, birds: EarlyBirds, ticket: Ticket):
        self.birds, self.ticket = birds, ticket

    def phase(self) -> Phase:
        """Its phase."""
        return Phase(self.ticket.name, self.begin, self.birds.run.steps, self.record)

    def begin(self) -> Start:
        """What is left of the dense network, where its mask has settled."""
        birds, run, ticket = self.birds, self.birds.run, self.ticket
        begun = {(c, s): Origin(step, found) for c, s, step, found in run.rounds.meta(0)["origins"]}
        self.origin = begun[ticket.level - 1, run.seeds.index(ticket.seed)]
        self.dense, small, self.compacted = cut(birds, ticket, self.origin)
        precision = birds.config.mixed_precision if ticket.arm == "early_bird_mixed" else ""
        # The schedule of a fresh optimizer begins with the ticket.
        own = run.steps - (self.origin.step if birds.config.optimizer == "fresh" else 0)
        self.objective = compacting.of_any_width(run.build(precision, steps=own))
        fresh = compacting.fresh_optimizer(self.objective, small.key)
        self.small = small._replace(opt_state=loss_scale.carried_over(small.opt_state, fresh))
        left, weights = costs.num_weights(small.params), costs.num_weights(self.dense.params)
        how = "found at step" if self.origin.found else "not found; its mask is that of step"
        hosts.say(
            f"{ticket.name}, {ticket.removed:.0%} of the channels: {how} {self.origin.step}; "
            f"{left:,} of {weights:,} weights are left."
        )
        states = jax.tree.map(lambda x: x[None], self.small)
        mask = jax.jit(jax.vmap(pruning.ones))(states.params)
        body = Stack([ticket], states, mask)
        return Start(self.objective, run.place_tickets(self.objective, 1), body=body, join=self.origin.step)

    def record(self, trained: Trained) -> Record:
        """What the ticket cost, and its mask."""
        birds, run, batch, step = self.birds, self.birds.run, self.birds.run.feed.batch, self.origin.step
        search, own = run.rounds.meta(0), run.steps - step
        looks = looking(birds, self.dense) * (step // birds.search.interval)
        dense, small = (
            costs.step_flops(objective, state, batch)
            for objective, state in ((birds.dense, self.dense), (self.objective, self.small))
        )
        found_step = step if self.origin.found else detection.NOT_FOUND
        row = {
            "weights": costs.num_weights(self.small.params),
            "flops": dense * step + small * own + looks,
            "training_seconds": search["step_seconds"] * step + trained.step_seconds * own,
            "compilation_seconds": search["compilation_seconds"] + trained.clock.compilation_seconds,
            "channels_removed": 1 - np.mean(np.concatenate([*self.compacted.mask.values()])),
            "found_step": found_step,
        }
        if self.ticket.seed == run.seeds[0]:  # a compilation, of networks that are nearly the same
            row["step_memory_mib"] = costs.step_memory(self.objective, self.small, batch)
        origin = {"parent": "dense", "start": step, "found_step": found_step, "masked_but_left": self.compacted.left}
        return Record([row], [(self.ticket, self.compacted.mask, origin)])
