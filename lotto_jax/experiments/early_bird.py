"""Early-bird tickets (section 4.5; You et al., ICLR 2020): channels pruned once their mask settles, early in training.

Phase 0 trains the dense network of every seed and takes a channel mask for every compression each `interval` steps,
inside the compiled loop. Where a mask has settled, the state of that step is kept. Every later phase trains one ticket:
it removes the masked channels from the state that was kept, and trains what is left on to the last step.

In results.csv the sparsity of a ticket is its compression, the share of channels to remove; `channels_removed` is the
share that is, which is less where `round_to` keeps some. Beside the metrics of the objective are `weights` (all params
left), `flops` and `training_seconds` (of the dense steps up to where it was found, the looks, and its own steps,
without evaluation, compaction and, but for runs of a few steps, compilation, which is `compilation_seconds`),
`step_memory_mib` (the most that a step of the first seed's ticket needs), and `found_step`.

The metrics of `config.metrics` are measured in the precision of the run, for tickets of mixed precision too.

If no mask settles within `search_share` of training, the ticket is the last mask there, and its row `found_step` is -1.
"""

import contextlib
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from safetensors.numpy import load, save
from tqdm import tqdm

from lotto_jax import config as configuration
from lotto_jax import pruning
from lotto_jax.data.sources import Dataset
from lotto_jax.experiments import build, compacting
from lotto_jax.experiments.measure import Measure
from lotto_jax.experiments.run_directory import Result, RunDirectory, write_atomically
from lotto_jax.experiments.tickets import Stack, Ticket, Trainer, batch_shapes, masked, pack, take, total_steps
from lotto_jax.metrics import flops
from lotto_jax.objectives import loss_scale
from lotto_jax.objectives.state import Objective, TrainState
from lotto_jax.pruning import channels, compaction
from lotto_jax.training import checkpoints, detection, loop
from lotto_jax.training.preemption import Preemption

ARMS = ("dense", "early_bird", "early_bird_mixed")
HISTORY = "channel_masks.safetensors"


class Start(NamedTuple):
    """Where a ticket begins: the step whose dense state it is cut from, and whether its mask had settled there."""

    step: int
    found: bool


def search_of(config: ConfigDict, components: tuple[str, ...], epoch_steps: int) -> detection.Search:
    """What `config.early_bird` looks for in a network with these components."""
    eb = config.early_bird
    return detection.Search(
        components if eb.pruned == "both" else (eb.pruned,),
        tuple(eb.compressions),
        eb.interval or epoch_steps,
        channels.EarlyBird(eb.lookback, eb.threshold),
        eb.minimum,
    )


def last_look(config: ConfigDict, steps: int, interval: int) -> int:
    """The step of the last mask that a ticket can be found at."""
    return int(config.early_bird.search_share * steps) // interval * interval


def check(config: ConfigDict, objective: Objective, dataset: Dataset) -> None:
    """Raise ValueError on the first field of `config.early_bird` that makes no sense for the networks or the data."""
    eb, components = config.early_bird, objective.components
    for arm in eb.arms:
        if arm not in ARMS or eb.arms.count(arm) > 1:
            raise ValueError(f"config.early_bird.arms is {tuple(eb.arms)}; it takes {', '.join(ARMS)}, each once.")
    if not set(eb.arms) - {"dense"}:
        raise ValueError("config.early_bird.arms must hold 'early_bird' or 'early_bird_mixed'.")
    if not eb.compressions or len(set(eb.compressions)) != len(eb.compressions):
        raise ValueError(f"config.early_bird.compressions is {tuple(eb.compressions)}; it takes different numbers.")
    for compression in eb.compressions:
        if not isinstance(compression, float) or not 0 < compression < 1:
            raise ValueError(f"config.early_bird.compressions holds {compression}; each must lie between 0 and 1.")
    for field in ("threshold", "search_share"):
        if not 0 < eb[field] < 1:
            raise ValueError(f"config.early_bird.{field} is {eb[field]}; it must lie between 0 and 1.")
    if eb.pruned not in ("both", *components):
        raise ValueError(
            f"config.early_bird.pruned is {eb.pruned!r}, but {config.model.name} has {', '.join(components)}; "
            "it takes 'both' or one of these."
        )
    search = search_of(config, components, len(dataset.train.label) // config.train.batch_size)
    params = jax.eval_shape(objective.init, jax.random.key(0)).params
    try:
        scales = search.scales(params)
    except ValueError as error:
        raise ValueError(f"{config.model.name} (pruned: {eb.pruned}) has no channels to remove: {error}") from error
    for compression in eb.compressions:
        try:
            jax.eval_shape(lambda s, c=compression: channels.channel_mask(s, c, eb.minimum), scales)
        except ValueError as error:
            raise ValueError(f"config.early_bird.compressions holds {compression}: {error}") from error
    steps = total_steps(config, dataset)
    looks = last_look(config, steps, search.interval) // search.interval
    if looks < eb.lookback:
        raise ValueError(
            f"config.early_bird.lookback is {eb.lookback}, but a mask every {search.interval} steps gives {looks} in "
            f"the first {eb.search_share:.0%} of {steps} steps; train longer, or lower lookback or interval."
        )


def _for_phase(
    config: ConfigDict, seeds: tuple[int, ...] = (), start: int = 0, precision: str = "", slim: bool = False
) -> ConfigDict:
    """The configuration that a trainer of one phase reads: its seeds, its first step, and its precision."""
    phase = config.copy_and_resolve_references()
    phase.seeds = seeds or tuple(config.seeds)
    phase.imp.rewind_step = start
    phase.precision = precision or config.precision
    phase.early_bird.slimming = config.early_bird.slimming if slim else 0.0
    return phase


class EarlyBirds:
    """One run: the dense search, then the tickets, each a phase."""

    def __init__(
        self,
        config: ConfigDict,
        dataset: Dataset,
        directory: RunDirectory,
        preemption: Preemption,
        measure: Measure | None = None,
    ):
        self.config, self.dataset, self.directory, self.preemption = config, dataset, directory, preemption
        self.measure = measure
        self.seeds = list(config.seeds)
        self.steps = total_steps(config, dataset)
        self.objective = self._objective(_for_phase(config, slim=True), self.steps)
        epoch_steps = len(dataset.train.label) // config.train.batch_size
        self.search = search_of(config, self.objective.components, epoch_steps)
        self.last_look = last_look(config, self.steps, self.search.interval)
        self.batch = batch_shapes(config, dataset)
        root = directory.path / "checkpoints"
        self.rounds = checkpoints.Store(root / "rounds")  # final states of every phase
        self.found = checkpoints.Store(root / "found")  # dense states that tickets are cut from, by step
        arms = [arm for arm in ARMS if arm in config.early_bird.arms and arm != "dense"]
        self.tickets = [
            Ticket(config.early_bird.pruned, 1 + i, arm, seed, compression)
            for i, compression in enumerate(config.early_bird.compressions)
            for arm in arms
            for seed in self.seeds
        ]

    def _objective(self, config: ConfigDict, steps: int) -> Objective:
        return build.objective(config, self.dataset.image_shape, self.dataset.classes, steps)

    # Phase 0: the dense network, and the search in it.

    def find(self) -> None:
        """Train the dense networks until all tickets are found, or to the end if there is a dense arm."""
        watched = detection.watch(self.objective, self.search)
        trainer = Trainer(_for_phase(self.config, slim=True), watched, self.dataset, self.directory, self.preemption)
        with contextlib.closing(trainer):
            states = trainer.place(loop.init(watched, jnp.asarray(self.seeds, jnp.uint32), jnp.uint32(0)))
            mask = jax.jit(jax.vmap(pruning.ones))(states.params)
            tickets = [Ticket("both", 0, "dense", seed, 0.0) for seed in self.seeds]
            stack = Stack(tickets, masked(states, mask), mask)
            to_the_end = "dense" in self.config.early_bird.arms
            trainer.progress.reset(len(self.seeds) * (self.steps if to_the_end else self.last_look))
            step, restored = trainer.resume(0, stack, 1, self.steps)
            stack = restored or stack
            while True:
                starts = self._look(step, stack.states)
                if step == self.steps or (not to_the_end and all(start is not None for start in starts.values())):
                    break
                stop = min((step // self.search.interval + 1) * self.search.interval, self.steps)
                stack, step = trainer.train(0, stack, step, stop), stop
            self.preemption.check()
            seconds = trainer.step_seconds
            if to_the_end:
                metrics = {name: np.asarray(values).tolist() for name, values in trainer.evaluate(stack).items()}
                one = take(stack.states, jnp.int32(0))
                cost = self._cost(self.objective, detection.unwatched(one))
                memory = compacting.step_memory(self.objective, detection.unwatched(one), self.batch)
                for i, ticket in enumerate(tickets):
                    own = {name: values[i] for name, values in metrics.items()}
                    weights = compacting.num_weights(one.params)
                    own |= {"weights": weights, "flops": cost * self.steps, "training_seconds": seconds * self.steps}
                    own |= {"compilation_seconds": trainer.compilation_seconds, "step_memory_mib": memory}
                    self._report(ticket, own)
            self._keep(
                0,
                stack,
                {
                    "seconds": seconds,
                    "compilation_seconds": trainer.compilation_seconds,
                    "starts": [[*key, *start] for key, start in starts.items() if start],
                },
            )

    def _look(self, step: int, states: TrainState) -> dict[tuple[int, int], Start | None]:
        """Where the ticket of each (compression, seed), both by number, starts, or None while it is not known.

        Keeps the states of this step if some ticket starts here, and the masks.
        """
        seen: detection.Detection = jax.device_get(states.model_state[detection.COLLECTION])
        starts: dict[tuple[int, int], Start | None] = {}
        for (s, c), found in np.ndenumerate(seen.found):
            settled = found != detection.NOT_FOUND and found <= self.last_look
            given_up = Start(self.last_look, False) if step >= self.last_look else None
            starts[c, s] = Start(int(found), True) if settled else given_up
        if any(start is not None and start.step == step for start in starts.values()):
            self.found.save(step, states, {}, wait=True)
        if step and step % self.search.interval == 0:
            self._remember(step, seen)
        return starts

    def _remember(self, step: int, seen: detection.Detection) -> None:
        """Add the masks of a step to the history that is drawn: bits [seeds, compressions, channels]."""
        path = self.directory.path / HISTORY
        history = load(path.read_bytes()) if path.exists() else {}
        masks = seen.masks
        bits = np.concatenate([np.asarray(masks[name]) for name in sorted(masks)], axis=-1)
        history = {name: x for name, x in history.items() if name == "channels" or int(name) < step}
        history |= {str(step): np.packbits(bits, axis=-1), "channels": np.array(bits.shape[-1])}
        write_atomically(path, save(history))

    # The other phases: a ticket each.

    def cut(self, ticket: Ticket, start: Start) -> tuple[TrainState, TrainState, compaction.Compacted]:
        """The dense state that a ticket starts from, and the compacted one."""
        watched = detection.watch(self.objective, self.search)
        seeds = jax.ShapeDtypeStruct((len(self.seeds),), jnp.uint32)
        shapes = jax.eval_shape(lambda seeds: loop.init(watched, seeds, jnp.uint32(0)), seeds)
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        states = self.found.restore(start.step, checkpoints.like(shapes, here))
        state = take(states, jnp.int32(self.seeds.index(ticket.seed)))
        masks = state.model_state[detection.COLLECTION].masks
        mask = {name: keep[ticket.round - 1] for name, keep in masks.items()}
        dense = detection.unwatched(state)
        fresh = self.config.early_bird.optimizer == "fresh"
        walked = self._objective(_for_phase(self.config, precision="float32"), self.steps)
        round_to = self.config.early_bird.round_to
        small, compacted = compacting.compact(walked, dense, mask, self.batch, fresh, round_to)
        return dense, small, compacted

    def train(self, phase: int, ticket: Ticket) -> None:
        """Compact, train, evaluate and store one ticket."""
        search = self.rounds.meta(0)
        found = {(c, s): Start(step, settled) for c, s, step, settled in search["starts"]}
        start = found[ticket.round - 1, self.seeds.index(ticket.seed)]
        dense, small, compacted = self.cut(ticket, start)
        precision = self.config.early_bird.mixed_precision if ticket.arm == "early_bird_mixed" else ""
        config = _for_phase(self.config, (ticket.seed,), start.step, precision)
        # The schedule of a fresh optimizer begins with the ticket.
        own = self.steps - (start.step if self.config.early_bird.optimizer == "fresh" else 0)
        objective = compacting.of_any_width(self._objective(config, own))
        fresh = compacting.fresh_optimizer(objective, small.key)
        small = small._replace(opt_state=loss_scale.carried_over(small.opt_state, fresh))
        cost = self._cost(self.objective, dense), self._cost(objective, small)
        weights, step = compacting.num_weights(small.params), start.step if start.found else detection.NOT_FOUND
        tqdm.write(
            f"{ticket.name}, {ticket.sparsity:.0%} of the channels: "
            + (f"found at step {start.step}" if start.found else f"not found, mask of step {start.step} taken")
            + f"; {weights:,} of {compacting.num_weights(dense.params):,} weights are left."
        )
        with contextlib.closing(Trainer(config, objective, self.dataset, self.directory, self.preemption)) as trainer:
            states = jax.tree.map(lambda x: x[None], small)
            mask = jax.jit(jax.vmap(pruning.ones))(states.params)
            trainer.progress.reset(trainer.work(0, 1))
            stack = trainer.train_phase(phase, None, Stack([ticket], states, mask))
            self.preemption.check()
            metrics = {name: float(values[0]) for name, values in trainer.evaluate(stack).items()}
            before, after = start.step, self.steps - start.step
            metrics |= {
                "weights": weights,
                "flops": cost[0] * before + cost[1] * after + self._looking(dense) * (before // self.search.interval),
                "training_seconds": search["seconds"] * before + trainer.step_seconds * after,
                "compilation_seconds": search["compilation_seconds"] + trainer.compilation_seconds,
                "channels_removed": 1 - np.mean(np.concatenate([*compacted.mask.values()])),
                "found_step": step,
            }
            if ticket.seed == self.seeds[0]:  # a compilation, of networks that are nearly the same
                metrics["step_memory_mib"] = compacting.step_memory(objective, small, self.batch)
            self._report(ticket, metrics)
            provenance = {
                "name": ticket.name,
                **ticket._asdict(),
                "config_digest": configuration.digest(self.config),
                "parent": "dense",
                "start": f"checkpoints/found/{start.step}",
                "found_step": step,
                "masked_but_left": compacted.left,
            }
            self.directory.save_ticket(ticket.name, compacted.mask, provenance)
            self._keep(phase, stack, {})

    # What every phase ends with.

    def _cost(self, objective: Objective, state: TrainState) -> int:
        """FLOPs of a train step."""
        return compacting.step_flops(objective, state, self.batch)

    def _looking(self, state: TrainState) -> int:
        """FLOPs of one look for one ticket."""
        one = self.search._replace(compressions=self.search.compressions[:1])
        arguments = one.init(state.params), one.scales(state.params), state.step
        return flops.count(one.look, *arguments).total

    def _report(self, ticket: Ticket, metrics: dict[str, float]) -> None:
        model, dataset = self.config.model.name, self.config.dataset.name
        pruned, number, arm, seed, compression = ticket
        self.directory.add_results(
            Result("early_bird", model, dataset, pruned, number, compression, arm, seed, self.steps, name, float(value))
            for name, value in metrics.items()
        )

    def _keep(self, phase: int, stack: Stack, meta: dict) -> None:
        """Store the final states of a phase, which marks it as done."""
        states = detection.unwatched(stack.states)
        state = {"params": states.params, "model_state": states.model_state, "mask": pack(stack.mask)}
        tickets = [list(ticket) for ticket in stack.tickets]
        self.rounds.save(phase, state, {"phase": phase, "tickets": tickets, **meta}, wait=True)

    def run(self) -> None:
        """Run all phases that are not done yet."""
        last = max(self.rounds.steps(), default=-1)
        for phase in range(1 + len(self.tickets)):
            if phase > last:
                self._run_phase(phase)
            if self.measure is not None:
                self._measure(self.measure, phase)

    def _run_phase(self, phase: int) -> None:
        if phase:
            self.train(phase, self.tickets[phase - 1])
        else:
            self.find()

    def _measure(self, measure: Measure, phase: int) -> None:
        """Add the metrics of `config.metrics` that a phase lacks; train it again if what is kept is damaged."""
        try:
            measure(self.directory, self.rounds, [phase], self.preemption.check)
        except checkpoints.StorageError as error:
            warnings.warn(f"{error} Training that phase again.", stacklevel=2)
            if phase in self.rounds.steps():
                self.rounds.delete(phase)
            self._run_phase(phase)
            measure(self.directory, self.rounds, [phase], self.preemption.check)

    def close(self) -> None:
        """Finish pending saves."""
        self.rounds.close()
        self.found.close()


def run(
    config: ConfigDict,
    dataset: Dataset,
    directory: RunDirectory,
    preemption: Preemption,
    measure: Measure | None = None,
) -> None:
    """Run or resume the early-bird experiment of `config` in `directory`; `measure` adds metrics to the objective's."""
    with contextlib.closing(EarlyBirds(config, dataset, directory, preemption, measure)) as tickets:
        tickets.run()
