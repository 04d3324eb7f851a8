"""Every program of a run, lowered from shapes for the devices that the run would use; nothing is run.

Compacted early-bird tickets are not known before they are found, so they count as if they had the dense network's
widths.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.stages import Lowered
from jaxtyping import PyTree

from lotto_jax import experiments, pruning
from lotto_jax.experiments import arms, early_bird_search, measure, prune_at_init, selections
from lotto_jax.experiments.runner import Run
from lotto_jax.experiments.trainer import CHUNK_STEPS
from lotto_jax.metrics import extractors
from lotto_jax.metrics.inception import InceptionV3
from lotto_jax.metrics.registry import BY_EXTRACTOR
from lotto_jax.objectives.state import Batch, Objective, TrainState
from lotto_jax.training import detection, loop, mesh
from lotto_jax.training.placement import Placement


class Program(NamedTuple):
    """A program of a run.

    Attributes:
      name: what it does.
      tickets: how many it works on.
      split: devices that share a batch of a ticket.
      field: the field of the configuration that makes it smaller.
      lower: lowers it, on the mesh of the run.
    """

    name: str
    tickets: int
    split: int
    field: str
    lower: Callable[[], Lowered]


def of(run: Run) -> list[Program]:
    """The programs of a run, by the fields that its experiment reads.

    A step of one ticket comes first, by itself, for every number of devices that the phases of the run split it over.
    """
    imp, seeds = run.config.imp, len(run.seeds)
    reads = lambda field: field.startswith(experiments.of(run.config).reads or ("-",))  # noqa: E731
    few, batch = "config.seeds", "config.train.batch_size"
    place = functools.cache(lambda tickets: run.place_tickets(run.objective, tickets))
    splits = {place(phase.tickets).mesh.shape["data"]: place(phase.tickets).mesh for phase in run.phases}
    found = [Program("step", 1, split, batch, functools.partial(_step, run, splits[split])) for split in sorted(splits)]
    training = {("train", phase.tickets): run.objective for phase in run.phases}
    if reads("early_bird.interval"):  # in the first phase, whose tickets the others compact
        search = early_bird_search.search_of(run.config, run.build(precision="float32"), run.feed)
        watched = detection.watch(run.build(slimming=run.config.early_bird.slimming), search)
        training = {("train", phase.tickets): run.objective for phase in run.phases[1:]}
        training["train and look for early birds", run.phases[0].tickets] = watched
    for (name, tickets), objective in sorted(training.items(), key=lambda item: item[0][::-1]):
        train = functools.partial(_train, run, objective, tickets)
        split = place(tickets).mesh.shape["data"]
        found.append(Program(name, tickets, split, _largest(run, objective, tickets), train))
    most = max(phase.tickets for phase in run.phases)
    evaluate = functools.partial(_evaluate, run, run.objective, most)
    found.append(Program("evaluate", most, place(most).mesh.shape["data"], "config.evaluation.batch_size", evaluate))
    states, mask = _stack(run.objective, seeds, run.placement)
    number, salt = (_scalar(dtype, run.placement) for dtype in (jnp.float32, jnp.uint32))
    if reads("imp.rule"):
        prune = functools.partial(selections.prune.lower, selections.rule_of(run.config), states.params, mask, number)
        found.append(Program("prune", seeds, 1, few, prune))
    if reads("imp.arms") and "random_pruned" in imp.arms:
        found.append(Program("prune at random", seeds, 1, few, lambda: arms.shuffle.lower(states.key, salt, mask)))
    if reads("imp.one_shot_sparsities") and imp.one_shot_sparsities:
        prune = functools.partial(selections.prune_to.lower, states.params, mask, number)
        found.append(Program("prune at once", seeds, 1, few, prune))
    for arm in prune_at_init.SCORERS:
        if reads("imp.arms") and arm in imp.arms:
            found.append(Program(f"prune by {arm}", seeds, 1, batch, functools.partial(_find, run, arm, states, mask)))
    needs = {need for metric in measure.check(run.config, run.objective) for need in metric.needs}
    if needs & set(BY_EXTRACTOR) and run.config.metrics.features != "classifier":
        found.append(
            Program("features of Inception", 1, len(run.devices), "config.metrics.names", lambda: _features(run))
        )
    return found


def _stack(objective: Objective, tickets: int, placed: Placement) -> tuple[TrainState, pruning.Mask]:
    """The states and masks of stacked tickets as they train, as shapes on the mesh."""
    state = jax.eval_shape(objective.init, jax.random.key(0))
    mask = jax.eval_shape(pruning.ones, state.params)
    return _shapes((state, mask), mesh.by_ticket(placed.mesh), tickets + -tickets % placed.abreast)


def _shapes(tree: PyTree, sharding: NamedSharding, *axes: int) -> PyTree:
    """The arrays of a tree, with axes in front, as shapes on a mesh."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*axes, *x.shape), x.dtype, sharding=sharding), tree)


def _scalar(dtype: Any, placed: Placement) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), dtype, sharding=mesh.replicated(placed.mesh))


def _bytes(tree: PyTree) -> int:
    """On a device, of arrays without typed keys, which are few."""
    leaves = [x for x in jax.tree.leaves(tree) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


def _largest(run: Run, objective: Objective, tickets: int) -> str:
    """The field that decides most of what training keeps on a device: tickets, data, or else activations."""
    placed = run.place_tickets(objective, tickets)
    states = _bytes(_stack(objective, tickets, placed))
    data = _bytes(run.feed.outline(tickets, len(run.seeds), placed)[0])
    if max(states, data) < 2**30:  # both are small on every accelerator
        return "config.train.batch_size"
    return "config.seeds" if states > data else "config.dataset.device_budget_mb"


def _step(run: Run, devices: Mesh) -> Lowered:
    """A step of one ticket on the devices that a ticket has on a mesh; where it has several, of a ticket on all."""
    state = jax.eval_shape(run.objective.init, jax.random.key(0))
    ticket = state, jax.eval_shape(pruning.ones, state.params)
    if devices.shape["data"] == 1:
        one = Mesh(devices.devices[:1], devices.axis_names)
        inputs, batch = _shapes(ticket, mesh.replicated(one)), _shapes(run.feed.batch, mesh.replicated(one))
        step = jax.jit(lambda *inputs: run.objective.step(*inputs), donate_argnums=0)
        return step.lower(*inputs, batch, inputs[0].key)

    def of_one(_: tuple, state: TrainState, mask: pruning.Mask, batch: Batch) -> Any:
        return run.objective.step(state, mask, lax.with_sharding_constraint(batch, P("data")), state.key)

    abreast = devices.shape["ticket"]
    inputs = _shapes(ticket, mesh.by_ticket(devices), abreast)
    batch = _shapes(run.feed.batch, NamedSharding(devices, P("ticket", "data")), abreast)
    stacked = loop.over_tickets(of_one, "vmap", devices)
    return jax.jit(lambda *inputs: stacked((), *inputs), donate_argnums=0).lower(*inputs, batch)


def _train(run: Run, objective: Objective, tickets: int) -> Lowered:
    placed = run.place_tickets(objective, tickets)
    data, _ = run.feed.outline(tickets, len(run.seeds), placed)
    bound = _scalar(jnp.int32, placed)
    return loop.train.lower(
        objective,
        *_stack(objective, tickets, placed),
        data,
        bound,
        bound,
        batch_size=run.feed.batch_size,
        length=CHUNK_STEPS,
        mesh=placed.mesh,
        tickets=placed.parallel,
    )


def _evaluate(run: Run, objective: Objective, tickets: int) -> Lowered:
    placed = run.place_tickets(objective, tickets)
    states, _ = _stack(objective, tickets, placed)
    _, held_out = run.feed.outline(tickets, len(run.seeds), placed)
    return loop.evaluate.lower(
        objective,
        states.params,
        states.model_state,
        states.key,
        held_out,
        batch_size=run.config.evaluation.batch_size,
        mesh=placed.mesh,
        tickets=placed.parallel,
    )


def _find(run: Run, arm: str, states: TrainState, mask: pruning.Mask) -> Lowered:
    by_ticket, seeds = mesh.by_ticket(run.placement.mesh), len(run.seeds)
    batches = _shapes(run.feed.batch, by_ticket, seeds, run.config.imp.score_batches)
    sparsity = jax.ShapeDtypeStruct((seeds,), jnp.float32, sharding=by_ticket)
    return prune_at_init.find.lower(run.objective, arm, states, mask, batches, sparsity)


def _features(run: Run) -> Lowered:
    """Of a batch of images, as `extractors.stream` shards them."""
    over = Mesh(np.asarray(run.devices), ("data",))
    height, width, _ = run.feed.dataset.image_shape
    count = -(-measure.BATCH // over.size) * over.size
    images = jax.ShapeDtypeStruct((count, height, width, 3), jnp.uint8, sharding=NamedSharding(over, P("data")))
    params = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, 299, 299, 3)))["params"]
    params = _shapes(params, NamedSharding(over, P()))
    apply = extractors.inception_apply("tf1", "float32")
    return extractors.compute.lower(params, images, apply, ("2048",), over)
