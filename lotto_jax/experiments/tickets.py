"""Training a phase of tickets: chunks of the training loop, with progress, curves, checkpoints and their checks.

A phase trains one stack of tickets to the end of training. Tickets that begin at initialization go alone up to the
rewind step (the head); there those that begin at the snapshot join them, and all train as one program (the body).
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree
from ml_collections import ConfigDict
from tqdm import tqdm

from lotto_jax.data.sources import Dataset
from lotto_jax.data.streaming import Stream
from lotto_jax.experiments.events import Events
from lotto_jax.experiments.run_directory import Result, RunDirectory
from lotto_jax.objectives.state import Batch, Objective, TrainState
from lotto_jax.pruning import masks
from lotto_jax.training import checkpoints, loop, mesh
from lotto_jax.training.preemption import Preempted, Preemption

CHUNK_SECONDS = 2.0  # of training between two looks of the host: progress, SIGTERM, curves
CHUNK_STEPS = 1000  # most steps of a chunk


class Diverged(Exception):
    """A loss or a state is no longer finite."""


class Ticket(NamedTuple):
    """What one entry of the ticket axis is. `sparsity` is of the whole network's prunable weights."""

    pruned: str
    round: int
    arm: str
    seed: int
    sparsity: float

    @property
    def name(self) -> str:
        """Unique within a run."""
        sparsity = f"-{self.sparsity:.6f}" if self.arm == "one_shot" else ""
        return f"{self.pruned}-{self.arm}{sparsity}-round{self.round:02d}-seed{self.seed}"

    def result(self, config: ConfigDict, step: int, metric: str, value: float) -> Result:
        """A measurement of it after training."""
        where = (self.pruned, self.round, self.sparsity, self.arm, self.seed)
        return Result(config.experiment, config.model.name, config.dataset.name, *where, step, metric, value)


class Stack(NamedTuple):
    """Tickets stacked on the leading axis of states and masks."""

    tickets: list[Ticket]
    states: TrainState
    mask: masks.Mask


def join(*stacks: Stack) -> Stack:
    """One stack after the other on the ticket axis."""
    states, mask = concatenate([(s.states, s.mask) for s in stacks])
    return Stack([t for s in stacks for t in s.tickets], states, mask)


# The small operations on stacks are jitted because each array operation would compile by itself otherwise.


@jax.jit
def concatenate(trees: list[PyTree]) -> PyTree:
    """Stacked trees one after the other on the ticket axis."""
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), *trees)


@jax.jit
def take(tree: PyTree, chosen: Int[Array, "chosen"]) -> PyTree:
    """The tickets with these numbers."""
    return jax.tree.map(lambda x: x[chosen], tree)


@jax.jit
def pack(mask: masks.Mask) -> list[Array]:
    """Stacked masks as bits: prunable leaves only, uint8 [tickets, ceil(size / 8)]."""
    return [jnp.packbits(m.reshape(m.shape[0], -1), axis=1) for m in jax.tree.leaves(mask) if m.ndim > 1]


@jax.jit
def unpack(packed: list[Array], like: masks.Mask) -> masks.Mask:
    """The inverse of `pack`; stacked masks `like` (of any number of tickets) give structure and shapes."""
    leaves, structure = jax.tree.flatten(like)
    bits, tickets = iter(packed), packed[0].shape[0]

    def restore(m: Array) -> Array:
        if m.ndim == 1:
            return jnp.ones(tickets, bool)
        shape = m.shape[1:]
        return jnp.unpackbits(next(bits), axis=1, count=math.prod(shape)).astype(bool).reshape(tickets, *shape)

    return jax.tree.unflatten(structure, [restore(m) for m in leaves])


@jax.jit
def masked(states: TrainState, mask: masks.Mask) -> TrainState:
    """A copy of states, which may be donated, with pruned params set to 0: where a ticket starts."""
    return jax.tree.map(jnp.copy, states._replace(params=jax.vmap(masks.apply)(states.params, mask)))


def total_steps(config: ConfigDict, dataset: Dataset) -> int:
    """Steps of every ticket.

    Raises:
      ValueError: if `config.train`, `config.imp` or `config.evaluation` does not suit the dataset.
    """
    examples, batch_size = len(dataset.train.label), config.train.batch_size
    if batch_size > examples:
        raise ValueError(
            f"config.train.batch_size is {batch_size}, more than the {examples} training examples; lower it."
        )
    critic_steps = config.objective.get("critic_steps", 1)
    if batch_size % critic_steps:
        raise ValueError(
            f"config.train.batch_size is {batch_size}, which {critic_steps} critic steps cannot share equally; "
            "make it a multiple of config.objective.critic_steps."
        )
    steps = config.train.epochs * (examples // batch_size)
    if config.experiment == "imp" and config.imp.rewind_step >= steps:
        raise ValueError(
            f"config.imp.rewind_step is {config.imp.rewind_step}, but training has only {steps} steps; lower it."
        )
    if not len(getattr(dataset, config.evaluation.split).label):
        raise ValueError(
            f"config.evaluation.split is {config.evaluation.split!r}, but that split is empty; "
            "set config.dataset.validation_examples or evaluate on the test split."
        )
    return steps


def batch_shapes(config: ConfigDict, dataset: Dataset) -> Batch:
    """A training batch as shapes."""
    shape = lambda x: jax.ShapeDtypeStruct((config.train.batch_size, *x.shape[1:]), x.dtype)  # noqa: E731
    return jax.eval_shape(Batch, *map(shape, dataset.train))


def choose_parallel(wanted: str, objective: Objective) -> loop.Parallel:
    """What `config.parallel.tickets` stands for on this machine.

    `auto` is by measurement (`scripts/bench.py tickets`): dense layers are fastest with all tickets in one product;
    convolutions become grouped ones, and are faster ticket by ticket on a CPU.
    """
    if wanted != "auto":
        return cast(loop.Parallel, wanted)
    state = jax.eval_shape(objective.init, jax.random.key(0))
    convolutional = any(leaf.ndim == 4 for leaf in jax.tree.leaves(state.params))
    if not convolutional:
        return "vmap"
    return "sharded" if jax.device_count() > 1 else "sequential"


class Trainer:
    """Trains phases of tickets in a run directory and resumes them where they were left."""

    def __init__(
        self,
        config: ConfigDict,
        objective: Objective,
        dataset: Dataset,
        directory: RunDirectory,
        preemption: Preemption,
    ):
        self.config, self.objective, self.directory, self.preemption = config, objective, directory, preemption
        self.parallel = choose_parallel(config.parallel.tickets, objective)
        together = 1 if self.parallel == "sequential" else len(config.seeds)
        self.mesh = mesh.make(together, config.train.batch_size)
        everywhere = mesh.replicated(self.mesh)
        self.stream: Stream[Batch] | None = None
        self.train_seconds = 0.0
        # Of this phase, seconds and ticket-steps of chunks that may have compiled, and of the others.
        self.timing = [0.0, 0.0, 0.0, 0.0]
        self._compiled: set[int] = set()  # numbers of tickets that chunks were trained with
        if dataset.streamed:
            place = lambda split: jax.block_until_ready(jax.device_put(Batch(*split), everywhere))  # noqa: E731
            self.stream = Stream(dataset.train, place)
        else:
            self.data = jax.device_put(Batch(*map(jnp.asarray, dataset.train)), everywhere)
        held_out = getattr(dataset, config.evaluation.split)
        self.held_out = jax.device_put(Batch(*map(jnp.asarray, held_out)), everywhere)
        self.steps = total_steps(config, dataset)
        self.rewind_step = config.imp.rewind_step
        root: Path = directory.path / "checkpoints"
        self.chunks = checkpoints.Store(root / "chunks", keep=2)
        self.progress = tqdm(
            unit=" ticket-steps",
            unit_scale=True,
            dynamic_ncols=True,
            smoothing=0.05,
            delay=1.0,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,  # a file gets lines worth keeping
        )
        self._last_save = time.monotonic()
        self.events = Events(directory.path)

    def place(self, tree: PyTree) -> PyTree:
        """Split a stacked tree over the ticket axis of the mesh."""
        return jax.device_put(tree, mesh.over_tickets(self.mesh))

    def like(self, tree: PyTree) -> PyTree:
        """What `Store.restore` needs to bring arrays like those of `tree` (arrays or abstract) onto the mesh."""
        return checkpoints.like(tree, mesh.over_tickets(self.mesh))

    def position(self, phase: int, step: int) -> int:
        """Number of a mid-phase checkpoint: unique and growing over a run."""
        return phase * (self.steps + 1) + step

    def work(self, head: int, body: int) -> int:
        """Ticket-steps of a phase with so many tickets in head and body, for the progress bar."""
        return head * self.rewind_step + body * (self.steps - self.rewind_step)

    def train_phase(
        self, phase: int, head: Stack | None, body: Stack | None, at_rewind: Callable[[TrainState], None] | None = None
    ) -> Stack:
        """Train a phase to the last step; goes on from its newest readable checkpoint, if there is one.

        Args:
          phase: its number.
          head: tickets at step 0, trained alone up to the rewind step.
          body: tickets at the rewind step, joined there by the head.
          at_rewind: called with the states of the head at the rewind step (not if that lies behind a checkpoint).

        Returns:
          All tickets at the last step, those of the body first.
        """
        self.timing = [0.0, 0.0, 0.0, 0.0]
        whole = join(*[s for s in (body, head) if s is not None])
        step, restored = self.resume(phase, whole, self.rewind_step + 1, self.steps)
        if restored is not None:
            return self.train(phase, restored, step, self.steps)
        if head is not None:
            step, restored = self.resume(phase, head, 1, self.rewind_step)
            head = self.train(phase, restored or head, step, self.rewind_step)
            if at_rewind is not None:
                at_rewind(head.states)
            whole = join(*[s for s in (body, head) if s is not None])
        return self.train(phase, whole, self.rewind_step, self.steps)

    def resume(self, phase: int, stack: Stack, first: int, last: int) -> tuple[int, Stack | None]:
        """The step and the stack of the newest readable checkpoint between two steps; (0, None) if there is none."""
        like = self.like({"states": stack.states, "mask": pack(stack.mask)})
        base = self.position(phase, 0)
        found = self.chunks.restore_newest(base + first, base + last, like)
        if found is None:
            return 0, None
        position, saved = found
        step = position - base
        self.timing = self.chunks.meta(position).get("timing", self.timing)
        tqdm.write(f"Going on with round {stack.tickets[0].round} at step {step} of {self.steps}.")
        begun = step if first <= 1 else step - self.rewind_step
        self.progress.update(begun * len(stack.tickets))
        return step, stack._replace(states=saved["states"], mask=unpack(saved["mask"], stack.mask))

    def first_batches(self, states: TrainState, count: int) -> Batch:
        """The first `count` batches of every ticket, leaves [tickets, count, batch, ...]."""
        split = self.stream.split if self.stream is not None else self.data
        n, batch_size = len(split.label), self.config.train.batch_size
        numbers = loop.example_numbers(states.key, jnp.int32(0), steps=count, n=n, batch_size=batch_size)
        chosen = np.swapaxes(jax.device_get(numbers), 0, 1)
        return self.place(Batch(jnp.asarray(split.image[chosen]), jnp.asarray(split.label[chosen])))

    def data_for(self, states: TrainState, start: int, stop: int) -> Iterator[tuple[int, Batch | loop.Streamed]]:
        """What `loop.train` takes as data from step `start` to `stop`, in pieces, each with the step that ends it."""
        if self.stream is None:
            yield stop, self.data
            return
        key_data, order = np.unique(jax.device_get(jax.random.key_data(states.key)), axis=0, return_inverse=True)
        keys, order = jax.random.wrap_key_data(jnp.asarray(key_data)), self.place(order.reshape(-1).astype(np.int32))
        n, batch_size = len(self.stream.split.label), self.config.train.batch_size
        steps = min(self.stream.chunk_steps(len(keys) * batch_size), self.steps)

        def index(first: int) -> np.ndarray:
            numbers = loop.example_numbers(keys, jnp.int32(first), steps=steps, n=n, batch_size=batch_size)
            return jax.device_get(numbers)

        firsts = range(start, stop, steps)
        for first, batch in zip(firsts, self.stream.chunks(index, firsts), strict=True):
            yield min(first + steps, stop), loop.Streamed(batch, jnp.int32(first), order)

    def train(self, phase: int, stack: Stack, start: int, stop: int) -> Stack:
        """Chunks from step `start` to `stop`, each checked before anything is saved."""
        tickets, states, mask = stack
        states, mask = self.place((states, mask))
        self.directory.truncate_log(self.position(phase, start), self.position(phase, self.steps))
        what = f"round {tickets[0].round} of {self.config.imp.rounds}"
        if tickets[0].arm == "one_shot" or self.config.experiment == "early_bird":
            what = tickets[0].arm.replace("_", "-")
        self.progress.set_description(f"{what}, {len(tickets)} tickets", refresh=False)
        length = min(10, CHUNK_STEPS)
        pieces, piece_end = self.data_for(states, start, stop), start
        step = start
        while step < stop:
            began = time.monotonic()
            if step == piece_end:
                piece_end, data = next(pieces)
            end = min(step + length, piece_end)
            states, log, finite = loop.train(
                self.objective,
                states,
                mask,
                data,
                jnp.int32(step),
                jnp.int32(end),
                batch_size=self.config.train.batch_size,
                length=CHUNK_STEPS,
                mesh=self.mesh,
                tickets=self.parallel,
            )
            log, finite = jax.device_get((log, finite))
            seconds = time.monotonic() - began
            self.train_seconds += seconds
            warm = len(tickets) in self._compiled  # else this chunk may have compiled
            self._compiled.add(len(tickets))
            self.timing[2 * warm] += seconds
            self.timing[2 * warm + 1] += (end - step) * len(tickets)
            self._check_finite(tickets, log, finite, step, end)
            self._record(phase, tickets, log, step, end)
            if warm:
                length = int(np.clip(CHUNK_SECONDS / seconds * (end - step), 1, CHUNK_STEPS))
            step = end
            self._save(phase, step, states, mask)
        self.events.close()
        return Stack(tickets, states, mask)

    def _check_finite(self, tickets: list[Ticket], log: dict, finite: np.ndarray, step: int, end: int) -> None:
        if self.objective.collapses:
            return  # such an objective skips what is not finite, and its results say so
        for i, ticket in enumerate(tickets):
            for name, values in log.items():
                if not np.all(np.isfinite(values[: end - step, i])):
                    bad = step + 1 + int(np.argmin(np.isfinite(values[: end - step, i])))
                    raise Diverged(self._divergence(ticket, f"{name} is not finite at step {bad}"))
            if not finite[i]:
                raise Diverged(self._divergence(ticket, f"the weights are not finite after step {end}"))

    def _divergence(self, ticket: Ticket, what: str) -> str:
        return (
            f"Training diverged: {what} of round {ticket.round}, arm {ticket.arm}, seed {ticket.seed} "
            f"(pruned: {ticket.pruned}). The last good checkpoint is kept; lower config.optimizer.learning_rate."
        )

    def _record(self, phase: int, tickets: list[Ticket], log: dict, step: int, end: int) -> None:
        every = self.config.log_every
        points = [
            {"position": self.position(phase, t + 1), **ticket._asdict(), "step": t + 1}
            | {name: float(values[t - step, i]) for name, values in log.items()}
            for t in range(step, end)
            if (t + 1) % every == 0
            for i, ticket in enumerate(tickets)
        ]
        self.directory.log(points)
        for point in points:
            scalars = {name: point[name] for name in log}
            self.events.write(Ticket(*(point[field] for field in Ticket._fields)).name, point["step"], scalars)
        name = next(iter(log))
        self.progress.update((end - step) * len(tickets))
        self.progress.set_postfix(
            {
                "sparsity": f"{max(t.sparsity for t in tickets):.1%}",
                name: f"{np.mean(log[name][end - step - 1]):.4g}",
                "at": f"{end}/{self.steps}",
            }
            | ({"stalled": f"{self.stall_share:.1%}"} if self.stream else {}),
            refresh=False,
        )

    def _save(self, phase: int, step: int, states: TrainState, mask: masks.Mask) -> None:
        due = time.monotonic() - self._last_save >= self.config.checkpoint.every_seconds
        if due or step == self.steps or self.preemption.requested:
            state = {"states": states, "mask": pack(mask)}
            self.chunks.save(self.position(phase, step), state, {"phase": phase, "step": step, "timing": self.timing})
            self._last_save = time.monotonic()
        if self.preemption.requested:
            self.chunks.steps()  # waits until the save is committed
            raise Preempted

    def evaluate(self, stack: Stack) -> dict[str, np.ndarray]:
        """Metrics of the objective on the held-out split: `{metric: [tickets]}`."""
        states = stack.states
        metrics = loop.evaluate(
            self.objective,
            states.params,
            states.model_state,
            states.key,
            self.held_out,
            batch_size=self.config.evaluation.batch_size,
            mesh=self.mesh,
            tickets=self.parallel,
        )
        metrics = jax.device_get(metrics)
        for i, ticket in enumerate(stack.tickets):
            for name, values in metrics.items():
                if not (np.isfinite(values[i]) or self.objective.collapses):
                    raise Diverged(self._divergence(ticket, f"{name} on the held-out split is not finite"))
        return metrics

    @property
    def step_seconds(self) -> float:
        """Seconds that one ticket's step took its devices in this phase; without compilation, where there were chunks
        enough to tell.
        """
        cold_seconds, cold_steps, seconds, steps = self.timing
        return self.mesh.shape["ticket"] * (seconds / steps if steps else cold_seconds / max(cold_steps, 1))

    @property
    def compilation_seconds(self) -> float:
        """Seconds of this phase's chunks that training alone does not account for."""
        cold_seconds, cold_steps, seconds, steps = self.timing
        return max(cold_seconds - cold_steps * seconds / steps, 0.0) if steps else 0.0

    @property
    def stall_share(self) -> float:
        """Share of the training time in which the device waited for streamed data."""
        return self.stream.stall_seconds / self.train_seconds if self.stream and self.train_seconds else 0.0

    def close(self) -> None:
        """Finish pending saves."""
        self.progress.close()
        if self.stream is not None:
            self.stream.close()
            print(f"The device waited {self.stall_share:.1%} of {self.train_seconds:.1f} s of training for data.")
        self.events.close()
        self.chunks.close()
