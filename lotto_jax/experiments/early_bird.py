"""Early-bird tickets (section 4.5; You et al., ICLR 2020): channels pruned once their mask settles, early in training.

The dense phase takes a channel mask for every compression each `interval` steps, inside the compiled loop. Where a
mask has settled, the state of that step is kept. Every later phase trains one ticket: it removes the masked channels
from the state that was kept, and trains what is left on to the last step. If no mask settles within `search_share` of
training, the ticket is the last mask there, and its row `found_step` is -1.

The costs of a ticket are those of the dense steps up to where it was found, of the looks, and of its own steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from lotto_jax import progress, pruning
from lotto_jax.experiments import compacting, costs
from lotto_jax.experiments.early_bird_search import ARMS, Origin, check, last_look, origins, search_of
from lotto_jax.experiments.protocol import Experiment, Phase, Record, Stack, Start, Trained
from lotto_jax.metrics import flops
from lotto_jax.objectives import loss_scale
from lotto_jax.objectives.state import TrainState
from lotto_jax.pruning import compaction
from lotto_jax.reports import sections
from lotto_jax.runs import pictures
from lotto_jax.runs.tickets import Ticket
from lotto_jax.training import detection, loop, stacks

if TYPE_CHECKING:
    from lotto_jax.experiments.runner import Run


class EarlyBirds:
    """The phases of one run."""

    def __init__(self, run: Run):
        self.run, self.config = run, run.config.early_bird
        self.dense = run.build(slimming=self.config.slimming)
        self.search = search_of(run.config, run.objective.components, run.feed.epoch_steps)
        self.watched = detection.watch(self.dense, self.search)
        self.last = last_look(run.config, run.steps, self.search.interval)
        self.to_the_end = "dense" in self.config.arms

    def phases(self) -> list[Phase]:
        """The search, then a phase for every ticket."""
        run, arms = self.run, [arm for arm in ARMS if arm in self.config.arms and arm != "dense"]
        tickets = [
            Ticket(self.config.pruned, 1 + i, arm, seed, compression, "channels")
            for i, compression in enumerate(self.config.compressions)
            for arm in arms
            for seed in run.seeds
        ]
        work = len(run.seeds) * (run.steps if self.to_the_end else self.last)
        search = Phase(
            "the search", self.begin, work, self.found, self.to_the_end, "always" if self.to_the_end else "never"
        )
        return [search, *(_Bird(self, ticket).phase() for ticket in tickets)]

    def begin(self) -> Start:
        """The dense networks, watched."""
        run = self.run
        placement = run.place_tickets(self.watched, len(run.seeds))
        states = placement.place(loop.init(self.watched, jnp.asarray(run.seeds, jnp.uint32), jnp.uint32(0)))
        mask = jax.jit(jax.vmap(pruning.ones))(states.params)
        head = Stack([Ticket("both", 0, "dense", seed, 0.0, "channels") for seed in run.seeds], states, mask)
        looks = range(0, run.steps + 1, self.search.interval)
        head = head._replace(states=stacks.masked(states, mask))
        return Start(self.watched, placement, head, looks=looks, look=self.look, kept=detection.unwatched)

    def look(self, step: int, states: TrainState) -> bool:
        """Keep the masks, and the states if a ticket begins here; True if nothing is left to train for."""
        seen: detection.Detection = jax.device_get(states.model_state[detection.COLLECTION])
        begun = origins(seen, step, self.last).values()
        if any(origin is not None and origin.step == step for origin in begun):
            self.run.keep_snapshot(step, states)
        if step:
            pictures.add_channel_masks(self.run.directory.path, step, seen.masks)
        return not self.to_the_end and all(origin is not None for origin in begun)

    def found(self, trained: Trained) -> Record:
        """What the dense networks cost, and where every ticket begins."""
        states = trained.stack.states
        seen = jax.device_get(states.model_state[detection.COLLECTION])
        begun = origins(seen, trained.step, self.last)
        meta = {"origins": [[*key, *origin] for key, origin in begun.items() if origin]}
        if not self.to_the_end:
            return Record(meta=meta)
        one, steps = detection.unwatched(stacks.take(states, jnp.int32(0))), self.run.steps
        row = {
            "weights": costs.num_weights(one.params),
            "flops": costs.step_flops(self.dense, one, self.run.feed.batch) * steps,
            "training_seconds": trained.step_seconds * steps,
            "compilation_seconds": trained.clock.compilation_seconds,
            "step_memory_mib": costs.step_memory(self.dense, one, self.run.feed.batch),
        }
        return Record([row] * len(trained.stack.tickets), meta=meta)

    def cut(self, ticket: Ticket, origin: Origin) -> tuple[TrainState, TrainState, compaction.Compacted]:
        """The dense state that a ticket starts from, the compacted one, and how they differ."""
        states = jax.device_put(self.run.snapshot(origin.step), jax.devices()[0])
        state = stacks.take(states, jnp.int32(self.run.seeds.index(ticket.seed)))
        masks = state.model_state[detection.COLLECTION].masks
        mask = {name: keep[ticket.level - 1] for name, keep in masks.items()}
        dense, walked = detection.unwatched(state), self.run.build(precision="float32")
        fresh, round_to = self.config.optimizer == "fresh", self.config.round_to
        return dense, *compacting.compact(walked, dense, mask, self.run.feed.batch, fresh, round_to)

    def looking(self, state: TrainState) -> int:
        """FLOPs of one look for one ticket."""
        one = self.search._replace(compressions=self.search.compressions[:1])
        return flops.count(one.look, one.init(state.params), one.scales(state.params), state.step).total


class _Bird:
    """One ticket."""

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
        self.dense, small, self.compacted = birds.cut(ticket, self.origin)
        precision = birds.config.mixed_precision if ticket.arm == "early_bird_mixed" else ""
        # The schedule of a fresh optimizer begins with the ticket.
        own = run.steps - (self.origin.step if birds.config.optimizer == "fresh" else 0)
        self.objective = compacting.of_any_width(run.build(precision, steps=own))
        fresh = compacting.fresh_optimizer(self.objective, small.key)
        self.small = small._replace(opt_state=loss_scale.carried_over(small.opt_state, fresh))
        left, weights = costs.num_weights(small.params), costs.num_weights(self.dense.params)
        how = "found at step" if self.origin.found else "not found; its mask is that of step"
        progress.say(
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
        looks = birds.looking(self.dense) * (step // birds.search.interval)
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


EXPERIMENT = Experiment(
    check,
    phases=lambda run: EarlyBirds(run).phases(),
    figures=(sections.metrics, sections.mask_distances),
    reads=("early_bird",),
)
