"""Early-bird tickets (section 4.5; You et al., ICLR 2020): channels pruned once their mask settles, early in training.

The dense phase takes a channel mask for every compression each `interval` steps, inside the compiled loop. Where a
mask has settled, the state of that step is kept. Every later phase trains one ticket: it removes the masked channels
from the state that was kept, and trains what is left on to the last step. If no mask settles within `search_share` of
training, the ticket is the last mask there, and its row `found_step` is -1.

The costs of a ticket are the costs of the dense steps up to where it was found, of the looks, and of its own steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from lotto_jax import pruning
from lotto_jax.experiments import costs
from lotto_jax.experiments.early_bird_search import ARMS, check, last_look, origins, search_of
from lotto_jax.experiments.early_bird_ticket import Bird
from lotto_jax.experiments.protocol import Experiment, Phase, Record, Stack, Start, Trained
from lotto_jax.objectives.state import TrainState
from lotto_jax.reports import sections
from lotto_jax.runs import pictures
from lotto_jax.runs.tickets import Ticket
from lotto_jax.training import detection, hosts, loop, stacks

if TYPE_CHECKING:
    from lotto_jax.experiments.runner import Run


class EarlyBirds:
    """The phases of one run."""

    def __init__(self, run: Run):
        self.run, self.config = run, run.config.early_bird
        self.dense = run.build(slimming=self.config.slimming)
        self.search = search_of(run.config, run.build(precision="float32"), run.feed)
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
        measured: Literal["always", "never"] = "always" if self.to_the_end else "never"
        search = Phase("the search", self.begin, len(run.seeds), work, self.found, self.to_the_end, measured)
        return [search, *(Bird(self, ticket).phase() for ticket in tickets)]

    def begin(self) -> Start:
        """The dense networks, watched."""
        run = self.run
        states = run.placement.place(loop.init(self.watched, jnp.asarray(run.seeds, jnp.uint32), jnp.uint32(0)))
        mask = jax.jit(jax.vmap(pruning.ones))(states.params)
        head = Stack([Ticket("both", 0, "dense", seed, 0.0, "channels") for seed in run.seeds], states, mask)
        looks = range(0, run.steps + 1, self.search.interval)
        head = head._replace(states=stacks.masked(states, mask))
        return Start(self.watched, head, looks=looks, look=self.look, kept=detection.unwatched)

    def look(self, step: int, states: TrainState) -> bool:
        """Keep the masks, and the states if a ticket begins here; True if nothing is left to train for."""
        seen: detection.Detection = hosts.gathered(states.model_state[detection.COLLECTION])
        begun = origins(seen, step, self.last).values()
        if any(origin is not None and origin.step == step for origin in begun):
            self.run.keep_snapshot(step, states)
        if step and hosts.is_first():
            pictures.add_channel_masks(self.run.directory.path, step, seen.masks)
        return not self.to_the_end and all(origin is not None for origin in begun)

    def found(self, trained: Trained) -> Record:
        """What the dense networks cost, and where every ticket begins."""
        states = trained.stack.states
        seen = hosts.gathered(states.model_state[detection.COLLECTION])
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


EXPERIMENT = Experiment(
    check,
    phases=lambda run: EarlyBirds(run).phases(),
    figures=(sections.metrics, sections.mask_distances),
    reads=("early_bird",),
)
