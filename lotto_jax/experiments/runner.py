"""The runner: from an experiment's phases to a finished run directory, whatever interrupts it.

For every phase that is not done: train it (`trainer`), evaluate it, write its results and tickets, keep its final
states, and measure what `config.metrics` asks for. A phase is done when its final states are committed; everything
before is idempotent and may be repeated.

Who verifies what, and when: every read of a checkpoint compares a checksum (`training.checkpoints`). What training goes
on from inside a phase is read when the phase begins, the newest first; a damaged one costs the steps since the one
before. What a run keeps, final states and snapshots, is read once at every start (`Run.verify`); a damaged or missing
phase is trained again from the phases before it, a snapshot from initialization, with the same numbers. Files outside
`checkpoints/` are replaced whole and have checksums (`runs.files`); what is damaged of them is written again from what
the final states say of each phase (`mending`).
"""

import functools
import warnings
from collections.abc import Collection, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree
from ml_collections import ConfigDict

from lotto_jax import pruning
from lotto_jax.experiments import build, costs, drawing, mending
from lotto_jax.experiments.measure import Measure
from lotto_jax.experiments.protocol import Experiment, Phase, Record, Stack, Start, Trained
from lotto_jax.experiments.recorder import Recorder
from lotto_jax.experiments.trainer import Trainer
from lotto_jax.objectives.state import Objective, TrainState
from lotto_jax.runs import directory as directories
from lotto_jax.runs import kept, provenance, results, tickets
from lotto_jax.runs.directory import RunDirectory
from lotto_jax.runs.tickets import Ticket
from lotto_jax.training import checkpoints, hosts, loop, placement, stacks
from lotto_jax.training.feed import Feed
from lotto_jax.training.preemption import Preemption


def directions(objective: Objective, metrics: Collection[str]) -> dict[str, str]:
    """Which values of metrics are better, as the objective and the costs declare it.

    Raises:
      ValueError: if one declares nothing.
    """
    declared = dict(objective.better) | costs.BETTER
    for metric in metrics:
        if metric not in declared:
            raise ValueError(
                f"The metric {metric!r} of the objective has no direction; give the Objective "
                f"better=(({metric!r}, 'lower'),), or 'higher', or 'neither'."
            )
    return {metric: declared[metric] for metric in metrics}


class Finished(NamedTuple):
    """The final states of a finished phase, on the mesh."""

    tickets: list[Ticket]
    params: PyTree
    model_state: PyTree
    mask: pruning.Mask


class Run:
    """A run, as its phases see it: its networks, and what the phases before have kept.

    Attributes:
      config: of the run.
      objective: of its networks, at full width.
      feed: its data.
      steps: of every ticket.
      seeds: `config.seeds`.
    """

    def __init__(
        self,
        config: ConfigDict,
        experiment: Experiment,
        objective: Objective,
        feed: Feed,
        directory: RunDirectory,
        preemption: Preemption,
        measure: Measure | None = None,
        devices: Sequence[jax.Device] = (),
    ):
        """`devices` are those that tickets may train on; empty for all that are here."""
        self.config: ConfigDict = config
        self.objective, self.feed, self.directory = objective, feed, directory
        self.preemption, self.measure, self.devices = preemption, measure, devices
        self.steps, self.seeds = feed.steps, list(config.seeds)
        self.recorder = Recorder(directory.path, config.log_every)
        self.trainer = Trainer(config, feed, directory, preemption, self.recorder)
        self.placement = self.place_tickets(objective, len(self.seeds))
        self.rounds = kept.store(directory.path)
        self.snapshots = checkpoints.Store(directory.path / kept.CHECKPOINTS / kept.SNAPSHOTS)
        self.phases: Sequence[Phase] = experiment.phases(self)
        for count in {phase.tickets for phase in self.phases}:
            self.place_tickets(objective, count)  # what finds no place is refused before anything trains

    # What phases are made of.

    def place_tickets(self, objective: Objective, count: int) -> placement.Placement:
        """Where so many tickets train."""
        wanted = self.config.parallel.tickets
        return placement.choose(wanted, objective, count, self.feed.batch_size, self.devices)

    def build(self, precision: str = "", slimming: float = 0.0, steps: int = 0) -> Objective:
        """The objective of the configuration in another precision, with slimming, or of a shorter training."""
        dataset = self.feed.dataset
        return build.objective(
            self.config, dataset.image_shape, dataset.classes, steps or self.steps, precision, slimming
        )

    def initial(self, salt: int) -> TrainState:
        """Fresh states of all seeds; every salt gives other params."""
        seeds = jnp.asarray(self.seeds, jnp.uint32)
        return self.placement.place(loop.init(self.objective, seeds, jnp.uint32(salt)))

    @functools.cached_property
    def fresh(self) -> TrainState:
        """The states that the dense networks start from."""
        return self.initial(0)

    @functools.cache  # noqa: B019  (a run lives as long as its process)
    def ones(self, pruned: str) -> pruning.Mask:
        """All-True masks, one a seed, in which only the pruned components are prunable."""
        predicate = pruning.is_kernel if pruned == "both" else pruning.in_components(pruned)
        return jax.jit(jax.vmap(lambda params: pruning.ones(params, predicate)))(self.fresh.params)

    @functools.cached_property
    def weights(self) -> int:
        """Prunable weights of the whole network."""
        return pruning.num_prunable(jax.tree.map(lambda m: m[0], self.ones("both")))

    def stack(self, pruned: str, level: int, arm: str, states: TrainState, mask: pruning.Mask) -> Stack:
        """A ticket of every seed: `mask` on `states`, which are copied. Masks get every kernel's full shape, so that
        stacks of different components can be joined.
        """
        removed = hosts.gathered(stacks.removed(mask))
        own = [
            Ticket(pruned, level, arm, seed, int(count) / self.weights)
            for seed, count in zip(self.seeds, removed, strict=True)
        ]
        return Stack(own, stacks.masked(states, mask), stacks.whole(mask, self.ones("both")))

    def finished(self, phase: int) -> Finished:
        """The final states of a finished phase of full-width networks; trained again if the stored ones are damaged."""
        try:
            return self._finished(phase)
        except checkpoints.StorageError as error:
            self._again(phase, str(error))
            return self._finished(phase)

    def _finished(self, phase: int) -> Finished:
        own = kept.tickets_of(self.rounds, phase)
        widen = lambda x: jax.ShapeDtypeStruct((len(own), *x.shape[1:]), x.dtype)  # noqa: E731
        ones = self.ones("both")
        state = {
            "params": self.fresh.params,
            "model_state": self.fresh.model_state,
            "mask": jax.eval_shape(stacks.pack, ones),
        }
        saved = self.rounds.restore(phase, self.placement.like(jax.tree.map(widen, state)))
        return Finished(own, saved["params"], saved["model_state"], stacks.unpack(saved["mask"], ones))

    def keep_snapshot(self, step: int, states: TrainState) -> None:
        """Keep the states of the dense phase at a step."""
        self.snapshots.save(step, states, {}, wait=True)

    def snapshot(self, step: int) -> TrainState:
        """The states of the dense phase at a step; trained again from initialization if the stored ones are lost."""
        start = self.phases[0].start()
        assert start.head is not None
        try:
            return self.snapshots.restore(step, self.placement.like(start.head.states))
        except checkpoints.StorageError as error:
            return self._snapshot_again(step, start, str(error))

    def _snapshot_again(self, step: int, start: Start, reason: str) -> TrainState:
        warnings.warn(f"{reason} Making that snapshot again.", stacklevel=3)
        states = self.trainer.replay(start, step, self.place_tickets(start.objective, start.tickets))
        states = self.placement.place(states)
        self.keep_snapshot(step, states)
        return states

    # The run.

    def run(self) -> None:
        """Train and measure all phases that are not done yet."""
        last = max(self.rounds.steps(), default=-1)
        done = [sum(phase.work for phase in self.phases[:number]) for number in range(len(self.phases) + 1)]
        self.recorder.total(done[-1], done[last + 1])
        self.verify(last)
        for number in range(len(self.phases)):
            if number > last:
                self.recorder.behind(done[number])
                self.train(number)
            if self.measure is not None and (number >= last or number in self.rounds.steps()):
                self._measure(self.measure, number)
        drawing.draw(self)

    def verify(self, last: int) -> None:
        """Read everything that is kept of the phases up to `last`, and make again what is damaged or missing."""
        hosts.first(mending.discard, self)
        there = self.rounds.steps()
        if not there:
            return
        expected = range(last + 1) if self.config.checkpoint.keep_states == "all" else sorted({0, *there})
        for number in expected:
            if reason := hosts.first(_unreadable, self.rounds, number):
                self._again(number, reason)
        for step in sorted({*self.snapshots.steps(), *self.rounds.meta(0).get("snapshots", [])}):
            if reason := hosts.first(_unreadable, self.snapshots, step):
                self._snapshot_again(step, self.phases[0].start(), reason)
        for number in hosts.first(mending.mend, self):
            hosts.first(self._write_tickets, mending.untrained(self, number))
        self._write_progress()

    def declare(self, rows: Sequence[results.Result], split: int = 1) -> None:
        """Say in metrics.json which values of the metrics of these rows are better, see `provenance.declare`."""
        if rows:
            better = directions(self.objective, dict.fromkeys(row.metric for row in rows))
            provenance.declare(self.directory.path, better, split)

    def _again(self, phase: int, reason: str) -> None:
        warnings.warn(f"{reason} Training {self.phases[phase].title} again.", stacklevel=3)
        if phase in self.rounds.steps():
            self.rounds.delete(phase)
        self.train(phase)

    def train(self, number: int) -> None:
        """Train, evaluate, record and keep one phase."""
        phase = self.phases[number]
        start = phase.start()
        trained = self.trainer.train(number, phase.title, start, self.place_tickets(start.objective, start.tickets))
        self.preemption.check()
        metrics = self.trainer.evaluate(start.objective, trained.stack, trained.placement) if phase.evaluated else {}
        self.preemption.check()
        record = phase.record(trained)
        rows = self._rows(trained, {name: values.tolist() for name, values in metrics.items()}, record)
        hosts.first(self._write, rows, record, trained.placement.mesh.shape["data"])
        self._keep(number, phase, start, trained, record, rows)

    def _rows(self, trained: Trained, metrics: dict[str, list[float]], record: Record) -> list[results.Result]:
        """The results of a phase."""
        rows = []
        for i, ticket in enumerate(trained.stack.tickets):
            values = {name: own[i] for name, own in metrics.items()} | dict(record.rows[i] if record.rows else {})
            rows += [ticket.result(self.config, self.steps, name, float(value)) for name, value in values.items()]
        return rows

    def _write(self, rows: Sequence[results.Result], record: Record, split: int) -> None:
        """Write the results of a phase whose batches were split over so many devices, and its tickets."""
        self.declare(rows, split)
        if rows:
            results.add(self.directory.path, rows)
        self._write_tickets(record)

    def _write_tickets(self, record: Record) -> None:
        for ticket, mask, origin in record.masks:
            tickets.write(self.directory.path, ticket, mask, origin)

    def _keep(
        self,
        number: int,
        phase: Phase,
        start: Start,
        trained: Trained,
        record: Record,
        rows: Sequence[results.Result],
    ) -> None:
        """Store the final states of a phase, which marks it as done; drop older ones if the configuration says so."""
        states = start.kept(trained.stack.states)
        state = {
            "params": states.params,
            "model_state": states.model_state,
            "mask": stacks.pack(trained.stack.mask),
        }
        meta = {
            "phase": number,
            "tickets": [ticket._asdict() for ticket in trained.stack.tickets],
            "image_shape": list(self.feed.dataset.image_shape),
            "steps": self.steps,
            "step_seconds": trained.step_seconds,
            "compilation_seconds": trained.clock.compilation_seconds,
            "measured": phase.measured,
            "batch_split_over": trained.placement.mesh.shape["data"],
            "rows": rows,
            "stored": [ticket.name for ticket, _, _ in record.masks],
            "snapshots": self.snapshots.steps(),
        }
        last = self.config.checkpoint.keep_states == "last"
        dropped = [old for old in self.rounds.steps() if last and 0 < old < number]
        before = [self.rounds.meta(old) for old in dropped]
        meta["stored_before"] = [name for own in before for name in [*own.get("stored_before", []), *own["stored"]]]
        self.rounds.save(number, state, meta | dict(record.meta), wait=True)
        for old in dropped:
            self.rounds.delete(old)
        self._write_progress()

    def _write_progress(self) -> None:
        done = max(self.rounds.steps()) + 1
        last = self.phases[done - 1].title
        hosts.first(self.directory.write_progress, directories.Progress(done, len(self.phases), last))

    def _measure(self, measure: Measure, number: int) -> None:
        """Add the metrics of `config.metrics` that a kept phase lacks."""
        path, check = self.directory.path, self.preemption.check
        try:
            measure(path, self.rounds, [number], check)
        except checkpoints.StorageError as error:
            self._again(number, str(error))
            measure(path, self.rounds, [number], check)

    def close(self) -> None:
        """Finish pending saves."""
        self.recorder.close()
        self.trainer.close()
        self.rounds.close()
        self.snapshots.close()


def _unreadable(store: checkpoints.Store, number: int) -> str:
    """Why a checkpoint cannot be read; empty if it can."""
    try:
        if number not in store.steps():
            raise checkpoints.StorageError(f"Checkpoint {number} in {store.directory} is missing.")
        store.restore(number)
    except checkpoints.StorageError as error:
        return str(error)
    return ""
