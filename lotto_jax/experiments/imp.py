"""Iterative magnitude pruning with rewinding (section 3.1): the search for winning tickets and its controls.

Phase 0 trains the dense network of every seed and keeps its state at the rewind step, the snapshot. Phase r prunes the
winning tickets that phase r - 1 trained by `fraction`, starts them from the snapshot again, and trains them beside the
control arms. A last phase trains the one-shot tickets.
"""

import contextlib
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict
from safetensors.numpy import save
from tqdm import tqdm

from lotto_jax import config as configuration
from lotto_jax import pruning
from lotto_jax.data.sources import Dataset
from lotto_jax.experiments import at_initialization
from lotto_jax.experiments.measure import Measure
from lotto_jax.experiments.run_directory import RunDirectory, write_atomically
from lotto_jax.experiments.tickets import Stack, Ticket, Trainer, join, masked, pack, take, unpack
from lotto_jax.objectives.state import Objective, TrainState
from lotto_jax.training import checkpoints, loop
from lotto_jax.training.preemption import Preemption

SHUFFLE = 3  # stream of the random masks, beside those of training.loop
ARMS = ("winning", "random", "random_pruned", *at_initialization.SCORERS)


class Trained(NamedTuple):
    """A finished phase: its tickets, and what is kept of them."""

    tickets: list[Ticket]
    params: PyTree
    model_state: PyTree
    mask: pruning.Mask


def check(config: ConfigDict, objective: Objective) -> None:
    """Raise ValueError on the first field of `config.imp` that makes no sense for the networks of `objective`."""
    imp, components = config.imp, objective.components
    if not 0 < imp.fraction < 1:
        raise ValueError(f"config.imp.fraction is {imp.fraction}; it must lie between 0 and 1.")
    for field in ("pruned", "arms"):
        names = imp[field]
        if len(set(names)) != len(names):
            raise ValueError(f"config.imp.{field} is {tuple(names)}; every entry may be there once.")
    for pruned in imp.pruned:
        if pruned not in ("both", *components):
            raise ValueError(
                f"config.imp.pruned names {pruned!r}, but {config.model.name} has {', '.join(components)}; "
                "it takes 'both' and component names."
            )
    for arm in imp.arms:
        if arm not in ARMS:
            raise ValueError(f"config.imp.arms names {arm!r}; it takes {', '.join(ARMS)}.")
        if arm in at_initialization.SCORERS and config.precision == "float16":
            raise ValueError(
                f"config.imp.arms holds {arm!r}, whose scores get lost in float16; set config.precision to bfloat16."
            )
    if "winning" not in imp.arms or not imp.pruned:
        raise ValueError("config.imp.arms must hold 'winning', and config.imp.pruned at least one entry.")
    for sparsity in imp.one_shot_sparsities:
        if not isinstance(sparsity, float) or not 0 < sparsity < 1:
            raise ValueError(f"config.imp.one_shot_sparsities holds {sparsity}; each must lie between 0 and 1.")
    params = jax.eval_shape(objective.init, jax.random.key(0)).params
    for pruned in imp.pruned:
        leaves = jax.tree.leaves(params if pruned == "both" else params[pruned])
        weights = left = sum(leaf.size for leaf in leaves if leaf.ndim >= 2)
        for number in range(1, imp.rounds + 1):
            removed = round(imp.fraction * left)
            if removed == 0 or removed == left:
                raise ValueError(
                    f"config.imp.rounds is {imp.rounds}, but round {number} would find only {left} of {weights} "
                    f"weights left to prune by {imp.fraction:.0%} (pruned: {pruned}); lower it to {number - 1}."
                )
            left -= removed
        for sparsity in imp.one_shot_sparsities:
            if round(sparsity * weights) == weights:
                raise ValueError(
                    f"config.imp.one_shot_sparsities holds {sparsity}, which leaves none of {weights} weights."
                )


class Search:
    """One IMP run: builds the tickets of each phase from those before, trains, measures and stores them."""

    def __init__(self, config: ConfigDict, objective: Objective, trainer: Trainer, measure: Measure | None):
        self.config, self.objective, self.trainer, self.measure = config, objective, trainer, measure
        root = trainer.directory.path / "checkpoints"
        self.rounds = checkpoints.Store(root / "rounds")
        self.rewind = checkpoints.Store(root / "rewind")
        self.seeds = list(config.seeds)
        self.phases = 1 + config.imp.rounds + bool(config.imp.one_shot_sparsities)
        self.fresh = self._initial(0)
        self.ones = {pruned: self._stacked_ones(pruned) for pruned in ("both", *config.imp.pruned)}
        self.dense_mask = self.ones["both"]
        self.weights = pruning.num_prunable(jax.tree.map(lambda m: m[0], self.dense_mask))

    def _initial(self, salt: int) -> TrainState:
        seeds = jnp.asarray(self.seeds, jnp.uint32)
        return self.trainer.place(loop.init(self.objective, seeds, jnp.uint32(salt)))

    def _stacked_ones(self, pruned: str) -> pruning.Mask:
        """All-True masks, one a seed, in which only the pruned components are prunable."""
        predicate = pruning.is_kernel if pruned == "both" else pruning.in_components(pruned)
        return jax.jit(jax.vmap(lambda params: pruning.ones(params, predicate)))(self.fresh.params)

    def _tickets(self, pruned: str, phase: int, arm: str, mask: pruning.Mask) -> list[Ticket]:
        removed = jax.device_get(_removed(mask))
        return [Ticket(pruned, phase, arm, s, int(r) / self.weights) for s, r in zip(self.seeds, removed, strict=True)]

    # Ticket stacks of each phase: (head at step 0, body at the rewind step).

    def dense(self) -> tuple[Stack | None, Stack | None]:
        """The original networks."""
        tickets = self._tickets("both", 0, "dense", self.dense_mask)
        return Stack(tickets, masked(self.fresh, self.dense_mask), self.dense_mask), None

    def round(self, r: int, snapshot: TrainState) -> tuple[Stack | None, Stack | None]:
        """The tickets of round r in every arm, for every choice of pruned components."""
        previous = self.trained(r - 1)
        head, body = [], []
        for j, pruned in enumerate(self.config.imp.pruned):
            if r == 1:
                params, mask = previous.params, self.ones[pruned]
            else:
                chosen = [i for i, t in enumerate(previous.tickets) if (t.pruned, t.arm) == (pruned, "winning")]
                params, mask = take(previous.params, jnp.asarray(chosen)), self._mask(previous, chosen, pruned)
            mask = _prune(params, mask, jnp.float32(self.config.imp.fraction))
            if empty := _emptied(mask):
                names = f"{', '.join(empty[:3])}{f' and {len(empty) - 3} more' if len(empty) > 3 else ''}"
                tqdm.write(f"Round {r}, {pruned} pruned: no weight is left in {names} of some seed.")
            for arm in self.config.imp.arms:
                salt = 1 + (r - 1) * len(self.config.imp.pruned) + j
                if arm == "random":
                    states = masked(self._initial(salt), mask)
                    stack = Stack(self._tickets(pruned, r, arm, mask), states, mask)
                    head.append(stack)
                    continue
                if arm in at_initialization.SCORERS:
                    head.append(self._at_initialization(pruned, r, arm, _sparsity(mask)))
                    continue
                arm_mask = mask if arm == "winning" else _shuffle(self.fresh.key, jnp.int32(salt), mask)
                stack = Stack(self._tickets(pruned, r, arm, mask), masked(snapshot, arm_mask), arm_mask)
                body.append(stack)
        return self._whole(head), self._whole(body)

    def _at_initialization(self, pruned: str, r: int, arm: str, sparsity: Array) -> Stack:
        """Tickets of the dense networks' initialization, as sparse as the winning ones, pruned before training."""
        batches = self.trainer.first_batches(self.fresh, self.config.imp.score_batches)
        mask = at_initialization.find(self.objective, arm, self.fresh, self.ones[pruned], batches, sparsity)
        return Stack(self._tickets(pruned, r, arm, mask), masked(self.fresh, mask), mask)

    def one_shot(self, snapshot: TrainState) -> tuple[Stack | None, Stack | None]:
        """Tickets pruned at once from the dense networks, in the first entry of `config.imp.pruned`."""
        pruned, dense = self.config.imp.pruned[0], self.trained(0)
        body = []
        for sparsity in self.config.imp.one_shot_sparsities:
            mask = _prune_to(dense.params, self.ones[pruned], jnp.float32(sparsity))
            tickets = self._tickets(pruned, 1, "one_shot", mask)
            body.append(Stack(tickets, masked(snapshot, mask), mask))
        return None, self._whole(body)

    def _whole(self, stacks: list[Stack]) -> Stack | None:
        """One stack over all choices of pruned components: masks get every kernel's full shape, so that they stack."""
        if not stacks:
            return None
        full = [s._replace(mask=_whole_mask(s.mask, self.dense_mask)) for s in stacks]
        return join(*full)

    def _mask(self, previous: Trained, chosen: list[int], pruned: str) -> pruning.Mask:
        """The chosen tickets' masks, prunable in the pruned components only."""
        mask = take(previous.mask, jnp.asarray(chosen))
        return jax.tree.map(lambda m, one: m if one.ndim > 1 else one, mask, self.ones[pruned])

    # Finished phases, kept for the next one and for metrics that are added later.

    def keep(self, phase: int, stack: Stack) -> None:
        """Store the final states of a phase, which marks it as done; drop older ones if the configuration says so."""
        state = {
            "params": stack.states.params,
            "model_state": stack.states.model_state,
            "mask": pack(stack.mask),
        }
        meta = {
            "phase": phase,
            "tickets": [list(t) for t in stack.tickets],
            "image_shape": list(self.trainer.held_out.image.shape[1:]),
            "steps": self.trainer.steps,
            "seconds": self.trainer.step_seconds,
            "compilation_seconds": self.trainer.compilation_seconds,
        }
        self.rounds.save(phase, state, meta, wait=True)
        if self.config.checkpoint.keep_states == "last":
            for old in self.rounds.steps():
                if 0 < old < phase:
                    self.rounds.delete(old)

    def restore(self, phase: int) -> Trained:
        """The final states of a finished phase."""
        tickets = [Ticket(*fields) for fields in self.rounds.meta(phase)["tickets"]]
        widen = lambda x: jax.ShapeDtypeStruct((len(tickets), *x.shape[1:]), x.dtype)  # noqa: E731
        state = {
            "params": self.fresh.params,
            "model_state": self.fresh.model_state,
            "mask": jax.eval_shape(pack, self.dense_mask),
        }
        saved = self.rounds.restore(phase, self.trainer.like(jax.tree.map(widen, state)))
        mask = unpack(saved["mask"], self.dense_mask)
        return Trained(tickets, saved["params"], saved["model_state"], mask)

    def trained(self, phase: int) -> Trained:
        """The final states of a finished phase, trained again if the stored ones are damaged."""
        try:
            return self.restore(phase)
        except checkpoints.StorageError as error:
            warnings.warn(f"{error} Training that round again.", stacklevel=2)
            if phase in self.rounds.steps():
                self.rounds.delete(phase)
            self.run_phase(phase)
            return self.restore(phase)

    def snapshot(self) -> TrainState:
        """The states at the rewind step; trained again from initialization if the stored ones are lost."""
        step = self.config.imp.rewind_step
        try:
            return self.rewind.restore(step, self.trainer.like(self.fresh))
        except checkpoints.StorageError as error:
            warnings.warn(f"{error} Making the rewind snapshot again.", stacklevel=2)
            head, _ = self.dense()
            assert head is not None
            states, start = head.states, 0
            for stop, data in self.trainer.data_for(states, 0, step):
                states, _, _ = loop.train(
                    self.objective,
                    states,
                    head.mask,
                    data,
                    jnp.int32(start),
                    jnp.int32(stop),
                    batch_size=self.config.train.batch_size,
                    length=max(step, 1),
                    mesh=self.trainer.mesh,
                    tickets=self.trainer.parallel,
                )
                start = stop
            self.rewind.save(step, states, {}, wait=True)
            return states

    # The run.

    def run(self) -> None:
        """Train and measure all phases that are not done yet."""
        last = max(self.rounds.steps(), default=-1)
        per = len(self.seeds) * len(self.config.imp.pruned)
        arms = self.config.imp.arms
        from_zero = sum(arm in ("random", *at_initialization.SCORERS) for arm in arms)
        each = [self.trainer.work(len(self.seeds), len(self.seeds))]
        each += [self.trainer.work(per * from_zero, per * len(arms))] * self.config.imp.rounds
        each += [self.trainer.work(0, len(self.seeds) * len(self.config.imp.one_shot_sparsities))]
        progress = self.trainer.progress
        progress.reset(sum(each))
        progress.initial = progress.n = progress.last_print_n = sum(each[: last + 1])  # does not count for the speed
        for phase in range(self.phases):
            if phase > last:
                self.run_phase(phase)
            if self.measure is not None and (phase >= last or phase in self.rounds.steps()):
                self._measure(self.measure, phase)

    def _measure(self, measure: Measure, phase: int) -> None:
        """Add the metrics of `config.metrics` that a kept phase lacks."""
        directory, check = self.trainer.directory, self.trainer.preemption.check
        try:
            measure(directory, self.rounds, [phase], check)
        except checkpoints.StorageError:
            self.trained(phase)
            measure(directory, self.rounds, [phase], check)

    def run_phase(self, phase: int) -> None:
        """Build, train, evaluate and store one phase."""
        if phase == 0:
            head, body = self.dense()
        elif phase <= self.config.imp.rounds:
            head, body = self.round(phase, self.snapshot())
        else:
            head, body = self.one_shot(self.snapshot())
        stack = self.trainer.train_phase(phase, head, body, self._keep_snapshot if phase == 0 else None)
        self.trainer.preemption.check()
        metrics = self.trainer.evaluate(stack)  # checks that they are finite
        self.trainer.preemption.check()
        self._report(stack, metrics)
        self.keep(phase, stack)

    def _keep_snapshot(self, states: TrainState) -> None:
        self.rewind.save(self.config.imp.rewind_step, states, {}, wait=True)

    def _report(self, stack: Stack, metrics: dict[str, np.ndarray]) -> None:
        """Write the results of a phase, and its tickets for use elsewhere."""
        config, directory = self.config, self.trainer.directory
        directory.add_results(
            t.result(config, self.trainer.steps, name, float(values[i]))
            for i, t in enumerate(stack.tickets)
            for name, values in metrics.items()
        )
        masks = jax.device_get(stack.mask)
        for i, ticket in enumerate(stack.tickets):
            if ticket.arm not in ("winning", "one_shot"):
                continue
            prunable = self.ones[ticket.pruned]
            mask = jax.tree.map(lambda m, one, i=i: m[i] if one.ndim > 1 else np.True_, masks, prunable)
            parent = ticket._replace(round=ticket.round - 1) if ticket.arm == "winning" and ticket.round > 1 else None
            provenance = {
                "name": ticket.name,
                **ticket._asdict(),
                "config_digest": configuration.digest(config),
                "parent": parent.name if parent else "dense",
                "start": f"checkpoints/rewind/{config.imp.rewind_step}",
            }
            directory.save_ticket(ticket.name, mask, provenance)

    def draw(self) -> None:
        """Store what the image grids show: originals, and the outputs of some rounds' tickets of the first seed."""
        count = min(self.config.evaluation.images, len(self.trainer.held_out.label))
        if not count:
            return
        batch = jax.tree.map(lambda x: x[:count], self.trainer.held_out)
        pictures = {"original": np.asarray(batch.image)}
        kept = [phase for phase in self.rounds.steps() if phase <= self.config.imp.rounds]
        for phase in sorted({kept[i] for i in np.linspace(0, len(kept) - 1, 6).round().astype(int)}):
            trained = self.trained(phase)
            chosen = [
                i
                for i, t in enumerate(trained.tickets)
                if t.seed == self.seeds[0] and (t.arm == "dense" or t.pruned == self.config.imp.pruned[0])
            ]
            keys = jnp.stack([self.fresh.key[0]] * len(chosen))
            params, model_state = take((trained.params, trained.model_state), jnp.asarray(chosen))
            kinds = {"reconstructions": self.objective.reconstruct, "samples": self.objective.sample}
            for kind, make in kinds.items():
                if make is None:
                    continue
                # One key for all: the samples of every ticket come from the same latent vectors.
                outputs = loop.images(
                    make, params, model_state, keys, batch, mesh=self.trainer.mesh, tickets="sequential"
                )
                for i, output in zip(chosen, np.asarray(outputs), strict=True):
                    ticket = trained.tickets[i]
                    name = f"{kind}/{ticket.arm}/{ticket.sparsity:.6f}"
                    pictures[name] = np.round(255 * np.nan_to_num(output)).astype(np.uint8)
        write_atomically(self.trainer.directory.path / "images.safetensors", save(pictures))

    def close(self) -> None:
        """Finish pending saves."""
        self.rounds.close()
        self.rewind.close()


@jax.jit
def _whole_mask(mask: pruning.Mask, full: pruning.Mask) -> pruning.Mask:
    """Stacked masks with the leaves of `full`: scalars of kernels that are not prunable become all True."""

    def widen(m: Array, f: Array) -> Array:
        return m if m.ndim == f.ndim else jnp.broadcast_to(m.reshape(-1, *[1] * (f.ndim - 1)), f.shape)

    return jax.tree.map(widen, mask, full)


@jax.jit
def _removed(mask: pruning.Mask) -> Array:
    """Pruned entries of every ticket."""
    return jax.vmap(lambda m: pruning.num_prunable(m) - pruning.num_kept(m))(mask)


@jax.jit
def _left_everywhere(mask: pruning.Mask) -> PyTree:
    """For every leaf, whether each ticket has an entry left."""
    return jax.tree.map(lambda m: jnp.all(jnp.any(m.reshape(m.shape[0], -1), axis=1)), mask)


def _emptied(mask: pruning.Mask) -> list[str]:
    """Kernels of which some ticket has nothing left, so that no signal passes (layer collapse; Tanaka et al. 2020)."""
    left = jax.device_get(_left_everywhere(mask))
    return [pruning.path_name(path) for path, kept in jax.tree_util.tree_leaves_with_path(left) if not kept]


@jax.jit
def _sparsity(mask: pruning.Mask) -> Array:
    """Of what is prunable, for every ticket."""
    return jax.vmap(pruning.sparsity)(mask)


@jax.jit
def _prune(params: PyTree, mask: pruning.Mask, fraction: Array) -> pruning.Mask:
    return jax.vmap(lambda p, m: pruning.global_prune(pruning.magnitude(p), m, fraction))(params, mask)


@jax.jit
def _prune_to(params: PyTree, mask: pruning.Mask, sparsity: Array) -> pruning.Mask:
    return jax.vmap(lambda p, m: pruning.prune_to_sparsity(pruning.magnitude(p), m, sparsity))(params, mask)


@jax.jit
def _shuffle(keys: Array, salt: Array, mask: pruning.Mask) -> pruning.Mask:
    def one(key: Array, ticket_mask: pruning.Mask) -> pruning.Mask:
        return pruning.random_like(jax.random.fold_in(jax.random.fold_in(key, SHUFFLE), salt), ticket_mask)

    return jax.vmap(one)(keys, mask)


def run(
    config: ConfigDict,
    objective: Objective,
    dataset: Dataset,
    directory: RunDirectory,
    preemption: Preemption,
    measure: Measure | None = None,
) -> None:
    """Run or resume the search of `config` in `directory`; `measure` adds metrics to the objective's own."""
    with contextlib.ExitStack() as stack:
        trainer = Trainer(config, objective, dataset, directory, preemption)
        stack.callback(trainer.close)
        search = Search(config, objective, trainer, measure)
        stack.callback(search.close)
        search.run()
        search.draw()
