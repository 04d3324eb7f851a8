"""Training a phase: chunks of the training loop, each checked, recorded and, when due, saved."""

import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lotto_jax.experiments.protocol import Stack, Start, Trained, join
from lotto_jax.experiments.recorder import Recorder
from lotto_jax.objectives.state import Objective, TrainState
from lotto_jax.pruning import masks
from lotto_jax.runs import kept
from lotto_jax.runs.directory import RunDirectory
from lotto_jax.runs.tickets import Ticket
from lotto_jax.training import checkpoints, hosts, loop, stacks
from lotto_jax.training.clock import Clock
from lotto_jax.training.feed import Feed
from lotto_jax.training.packing import Examples
from lotto_jax.training.placement import Placement
from lotto_jax.training.preemption import Preempted, Preemption

CHUNK_SECONDS = 2.0  # of training between two looks of the host: progress, SIGTERM, curves
CHUNK_STEPS = 1000  # most steps of a chunk


class Diverged(Exception):
    """A loss or a state is no longer finite."""


class Trainer:
    """Trains phases of tickets in a run directory and resumes them where they were left."""

    def __init__(
        self, config: ConfigDict, feed: Feed, directory: RunDirectory, preemption: Preemption, recorder: Recorder
    ):
        self.config, self.feed, self.preemption, self.recorder = config, feed, preemption, recorder
        self.steps = feed.steps
        points = config.evaluation.points
        self._evaluations = {round(self.steps * (i + 1) / points) for i in range(points)} - {0}
        self.chunks = checkpoints.Store(directory.path / kept.CHECKPOINTS / kept.CHUNKS, keep=2)
        self.clock = Clock()  # of the phase that trains, as is the placement
        self.seconds = 0.0  # of training, waiting for data included
        self._compiled: set[tuple[Objective, int]] = set()  # with so many tickets chunks were trained
        self._last_save = time.monotonic()

    def position(self, phase: int, step: int) -> int:
        """Number of a checkpoint inside a phase and of a point of a curve: unique and growing over a run."""
        return phase * (self.steps + 1) + step

    def train(self, phase: int, title: str, start: Start, placement: Placement) -> Trained:
        """Train a phase on a mesh to its end; goes on from its newest readable checkpoint, if there is one.

        Raises:
          Diverged: if a loss or a weight is no longer finite.
          Preempted: if SIGTERM came; the state is saved.
        """
        self.placement = placement
        start = start._replace(head=self._placed(start.head), body=self._placed(start.body))
        step, stack = self._begin(phase, title, start)
        span = self.position(phase, step), self.position(phase, self.steps)
        if hosts.is_first():
            self.recorder.begin(title, *span, _done(start, step))
        for stop in self._stops(start, step):
            if step == start.join and len(stack.tickets) != start.tickets:
                stack = join(start.body, stack)
            stack, step = self._until(phase, start, stack, step, stop), stop
            if step in self._evaluations:
                self._record_held_out(phase, start.objective, stack, step)
            if step in start.looks and start.look(step, stack.states):
                break
        if hosts.is_first():
            self.recorder.end()
        return Trained(stack, step, self.clock, placement)

    def replay(self, start: Start, stop: int, placement: Placement) -> TrainState:
        """The states that the head of a phase has at step `stop`, trained once more and not recorded."""
        assert start.head is not None
        self.placement = placement
        states, mask = placement.fill((start.head.states, start.head.mask))
        step = 0
        for end, data in self.feed.pieces(states, 0, stop, placement):
            while step < end:
                until = min(step + CHUNK_STEPS, end)
                states, _, _ = self._chunk(start.objective, states, mask, data, step, until)
                step = until
                self.preemption.check()
        return placement.empty(states, len(start.head.tickets))

    def _placed(self, stack: Stack | None) -> Stack | None:
        """A stack on the mesh of the phase, which may have other devices than the phases before."""
        return stack and Stack(stack.tickets, *self.placement.place((stack.states, stack.mask)))

    def _begin(self, phase: int, title: str, start: Start) -> tuple[int, Stack]:
        """The step that a phase goes on from, and the tickets that train there."""
        self.clock = Clock()
        spans = [(join(start.body, start.head), start.join + 1, self.steps), (start.head, 1, start.join)]
        for stack, first, last in spans:
            if stack is None or first > last:
                continue
            base = self.position(phase, 0)
            like = self.placement.like({"states": stack.states, "mask": stacks.pack(stack.mask)})
            found = self.chunks.restore_newest(base + first, base + last, like)
            if found is not None:
                position, saved = found
                self.clock = Clock(**self.chunks.meta(position).get("clock", {}))
                hosts.say(f"Going on with {title} at step {position - base} of {self.steps}.")
                mask = stacks.unpack(saved["mask"], stack.mask)
                return position - base, stack._replace(states=saved["states"], mask=mask)
        if start.head is not None:
            return 0, start.head
        assert start.body is not None
        return start.join, start.body

    def _stops(self, start: Start, step: int) -> Iterator[int]:
        """Where training halts from `step` on: where tickets join, at looks and evaluations, and at the end."""
        halts = {*start.looks, *self._evaluations, self.steps}
        if start.head is not None and start.body is not None:
            halts.add(start.join)
        yield from (halt for halt in sorted(halts) if step <= halt <= self.steps)

    def _until(self, phase: int, start: Start, stack: Stack, step: int, stop: int) -> Stack:
        """Chunks from `step` to `stop`."""
        tickets, count = stack.tickets, len(stack.tickets)
        states, mask = self.placement.fill((stack.states, stack.mask))
        pieces, piece_end = self.feed.pieces(states, step, stop, self.placement), step
        length = min(10, CHUNK_STEPS)
        while step < stop:
            began = time.monotonic()
            if step == piece_end:
                piece_end, data = next(pieces)
            end = min(step + length, piece_end)
            states, log, finite = self._chunk(start.objective, states, mask, data, step, end)
            jax.block_until_ready((log, finite))
            # What follows a clock is the first process's to decide, or no two would run the same program.
            seconds, due = hosts.told((time.monotonic() - began, self._due()))
            leaving = self.preemption.anywhere()
            log, finite = hosts.gathered((log, finite))
            log = {name: values[:, :count] for name, values in log.items()}
            warm = (start.objective, count) in self._compiled  # else this chunk may have compiled
            self._compiled.add((start.objective, count))
            self.clock = self.clock.after(seconds, (end - step) * count, warm)
            self.seconds += seconds
            self._check_finite(start.objective, tickets, log, finite, step, end)
            if hosts.is_first():
                shares = {"stalled": self.stall_share, "idle": self.placement.idle(count, jax.device_count())}
                self.recorder.record(tickets, log, step, end, self.position(phase, 0), shares)
            if warm:
                length = int(np.clip(CHUNK_SECONDS / seconds * (end - step), 1, CHUNK_STEPS))
            step = end
            if due or leaving or step == self.steps:
                self._save(phase, step, *self.placement.empty((states, mask), count))
            if leaving:
                self.chunks.steps()  # waits until the save is committed
                raise Preempted
        return Stack(tickets, *self.placement.empty((states, mask), count))

    def _due(self) -> bool:
        return time.monotonic() - self._last_save >= self.config.checkpoint.every_seconds

    def _chunk(
        self,
        objective: Objective,
        states: TrainState,
        mask: masks.Mask,
        data: Examples | loop.Streamed,
        step: int,
        end: int,
    ) -> tuple[TrainState, dict, jax.Array]:
        return loop.train(
            objective,
            states,
            mask,
            data,
            jnp.int32(step),
            jnp.int32(end),
            batch_size=self.feed.batch_size,
            length=CHUNK_STEPS,
            mesh=self.placement.mesh,
            tickets=self.placement.parallel,
        )

    def _check_finite(
        self, objective: Objective, tickets: list[Ticket], log: dict, finite: np.ndarray, step: int, end: int
    ) -> None:
        if objective.collapses:
            return  # such an objective skips what is not finite, and its results say so
        for i, ticket in enumerate(tickets):
            for name, values in log.items():
                if not np.all(np.isfinite(values[: end - step, i])):
                    bad = step + 1 + int(np.argmin(np.isfinite(values[: end - step, i])))
                    raise _diverged(ticket, f"{name} is not finite at step {bad}")
            if not finite[i]:
                raise _diverged(ticket, f"the weights are not finite after step {end}")

    def _save(self, phase: int, step: int, states: TrainState, mask: masks.Mask) -> None:
        state = {"states": states, "mask": stacks.pack(mask)}
        meta = {"phase": phase, "step": step, "clock": self.clock._asdict()}
        self.chunks.save(self.position(phase, step), state, meta)
        self._last_save = time.monotonic()

    def _record_held_out(self, phase: int, objective: Objective, stack: Stack, step: int) -> None:
        metrics = self.evaluate(objective, stack, self.placement)
        if hosts.is_first():
            self.recorder.held_out(stack.tickets, metrics, step, self.position(phase, 0))

    def evaluate(self, objective: Objective, stack: Stack, placement: Placement) -> dict[str, np.ndarray]:
        """Metrics of the objective on the held-out split: `{metric: [tickets]}`.

        Raises:
          Diverged: if one of them is not finite.
        """
        tickets, states, _ = stack
        inputs = placement.fill((states.params, states.model_state, states.key))
        found = loop.evaluate(
            objective,
            *inputs,
            self.feed.held_out(placement),
            batch_size=self.config.evaluation.batch_size,
            mesh=placement.mesh,
            tickets=placement.parallel,
        )
        metrics = {name: values[: len(tickets)] for name, values in hosts.gathered(found).items()}
        for i, ticket in enumerate(tickets):
            for name, values in metrics.items():
                if not (np.isfinite(values[i]) or objective.collapses):
                    raise _diverged(ticket, f"{name} on the held-out split is not finite")
        return metrics

    @property
    def stall_share(self) -> float | None:
        """Share of the training time in which the devices waited for streamed data; None if none is streamed."""
        if not self.feed.dataset.streamed:
            return None
        return self.feed.stall_seconds / self.seconds if self.seconds else 0.0

    def close(self) -> None:
        """Finish pending saves."""
        if self.stall_share is not None and self.seconds:
            hosts.say(f"The device waited {self.stall_share:.1%} of {self.seconds:.1f} s of training for data.")
        self.chunks.close()


def _done(start: Start, step: int) -> int:
    """Ticket-steps that a phase has behind it at a step."""
    head = len(start.head.tickets) if start.head else 0
    return head * min(step, start.join) + start.tickets * max(step - start.join, 0)


def _diverged(ticket: Ticket, what: str) -> Diverged:
    return Diverged(
        f"Training diverged: {what} of round {ticket.level}, arm {ticket.arm}, seed {ticket.seed} "
        f"(pruned: {ticket.pruned}). The last good checkpoint is kept; lower config.optimizer.learning_rate."
    )
