"""`analyse(workdir)`: why tickets win, from what a run has kept; only siblings are trained."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from lotto_jax import experiments, pruning
from lotto_jax.analysis import ALL, connectivity, dead_units, left, matching, overlap, signs, travel
from lotto_jax.data import sources
from lotto_jax.experiments import build, siblings
from lotto_jax.experiments.examined import Examined, Trained, rows
from lotto_jax.experiments.run import feed_of, run
from lotto_jax.objectives.state import Batch, Objective
from lotto_jax.runs import analysis, kept, tickets
from lotto_jax.runs import directory as directories
from lotto_jax.runs.analysis import Row
from lotto_jax.runs.directory import RunDirectory
from lotto_jax.runs.tickets import Ticket
from lotto_jax.training import loop
from lotto_jax.training.preemption import Preemption

SIBLINGS = "siblings"  # directory of their run, in that of the search
POINTS = 11  # on the line between two networks, the ends among them
STATISTICS = 50  # batches from which batch statistics are made again


class Analysis(NamedTuple):
    """What is found out at once.

    Attributes:
      quantities: that it fills in analysis.csv.
      rows: of a run.
      states: whether it needs the states of every round; else masks are enough.
    """

    quantities: tuple[str, ...]
    rows: Callable[[Examined], Iterator[Row]]
    states: bool = True


def weights_left(run: Examined) -> Iterator[Row]:
    """Weights that every ticket with a mask of its own keeps."""
    for masks in run.masks():
        for ticket, mask in masks.items():
            yield from rows(ticket, left.weights(mask), "weights_left")


def _pairs(masks: dict[Ticket, pruning.Mask]) -> Iterator[tuple[str, Ticket, Ticket]]:
    """Tickets of one round that are compared: winning tickets of two seeds, and a winning one with another arm's."""
    for a, b in itertools.combinations(sorted(masks, key=lambda t: (t.arm != "winning", t.seed)), 2):
        if a.arm == "winning" and (a.pruned, a.level) == (b.pruned, b.level):
            if b.arm == "winning":
                yield "seeds", a, b
            elif b.seed == a.seed and b.arm != "one_shot":  # these are sparse in their own way
                yield "arms", a, b


class _Aligned:
    """Trees of one seed with the channels of another, matched by the dense networks of both."""

    def __init__(self, run: Examined):
        self.run = run
        self.dense = {one.ticket.seed: jax.device_get(one.params) for one in run.phase(0)}
        self.found: dict[tuple[int, int], list[matching.Permutation]] = {}

    def __call__(self, tree: PyTree, seed: int, reference: int) -> PyTree:
        pair = seed, reference
        if pair not in self.found:
            own, other = ({"params": self.dense[number]} for number in pair)
            self.found[pair] = matching.match(self.run.groups, own, other)
        return matching.permute({"params": jax.device_get(tree)}, self.run.groups, self.found[pair])["params"]


def overlaps(run: Examined) -> Iterator[Row]:
    """Jaccard indices of masks of two seeds, as they are and aligned, and of two arms; and what chance gives."""
    aligned = _Aligned(run)
    for masks in run.masks():
        for kind, a, b in _pairs(masks):
            found = overlap.overlap(masks[a], masks[b])
            yield from rows(a, found, f"jaccard_{kind}", lambda x: x.jaccard, b)
            yield from rows(a, found, f"jaccard_{kind}_expected", lambda x: x.expected, b)
            if kind == "seeds":
                moved = overlap.overlap(masks[a], aligned(masks[b], b.seed, a.seed))
                yield from rows(a, moved, "jaccard_seeds_aligned", lambda x: x.jaccard, b)


def sign_agreements(run: Examined) -> Iterator[Row]:
    """Signs of trained winning tickets against the snapshot, and against those of another seed."""
    aligned = _Aligned(run)
    for number in run.phases:
        own = [one for one in run.phase(number) if one.ticket.arm in ("dense", "winning")]
        for one in own:
            start, _ = run.snapshot[one.ticket.seed]
            yield from rows(one.ticket, signs.agreement(start, one.params, one.mask), "signs_snapshot")
        for a, b in itertools.combinations(own, 2):
            if a.ticket.pruned != b.ticket.pruned:
                continue
            seeds = b.ticket.seed, a.ticket.seed
            moved = b._replace(params=aligned(b.params, *seeds), mask=aligned(b.mask, *seeds))
            for quantity, other in (("signs_seeds", b), ("signs_seeds_aligned", moved)):
                common = jax.tree.map(jnp.logical_and, a.mask, other.mask)
                found = signs.agreement(a.params, other.params, common)
                yield from rows(a.ticket, found, quantity, other=b.ticket)


def distances(run: Examined) -> Iterator[Row]:
    """How far the kept weights of tickets have travelled from where they started."""
    for number in run.phases:
        choices = {one.ticket.pruned for one in run.phase(number) if one.ticket.arm == "random"}
        initial = {pruned: run.initial(pruned, number) for pruned in choices}
        for one in run.phase(number):
            ticket = one.ticket
            if ticket.arm not in ("dense", "winning", "random", "random_pruned", "one_shot"):
                continue  # those that start from another network's weights, or from initialization by a score
            starts = initial[ticket.pruned] if ticket.arm == "random" else run.snapshot
            found = travel.distance(starts[ticket.seed][0], one.params, one.mask)
            yield from rows(ticket, found, "distance", lambda x: x.euclidean)
            yield from rows(ticket, found, "distance_relative", lambda x: x.relative)


def dead(run: Examined) -> Iterator[Row]:
    """Rectified linear units that no held-out image activates: of the snapshot and of every ticket."""
    split = getattr(run.feed.dataset, run.config.evaluation.split)
    size = run.config.evaluation.batch_size
    parts = [slice(i, i + size) for i in range(0, len(split.label), size)]
    batches = [Batch(jnp.asarray(split.image[part]), jnp.asarray(split.label[part])) for part in parts]

    @jax.jit
    def look(params: PyTree, model_state: PyTree, batch: Batch, key: Array) -> dict[str, Array]:
        return dead_units.highest(run.objective.evaluate, params, model_state, batch, key)

    key = jax.random.key(0)

    def counted(ticket: Ticket, params: PyTree, model_state: PyTree) -> Iterator[Row]:
        highest = jax.tree.map(lambda *xs: np.max(xs, 0), *(look(params, model_state, b, key) for b in batches))
        counts = {layer: (int(np.sum(x <= 0)), x.size) for layer, x in highest.items()}
        counts[ALL] = tuple(np.sum(list(counts.values()), 0)) if counts else (0, 0)
        yield from rows(ticket, counts, "dead_units", lambda x: x[0])
        yield from rows(ticket, counts, "dead_share", lambda x: x[0] / x[1] if x[1] else np.nan)

    for seed, (params, model_state) in run.snapshot.items():
        yield from counted(Ticket("both", 0, "snapshot", seed, 0.0), params, model_state)
    for number in run.phases:
        for one in run.phase(number):
            yield from counted(one.ticket, one.params, one.model_state)


def losses_between(run: Examined, a: Trained, b: Trained, metric: str, points: int = POINTS) -> Float[Array, "points"]:
    """A held-out metric on the line between two trained tickets."""
    params, model_state = connectivity.line((a.params, a.model_state), (b.params, b.model_state), points)
    key = jax.random.key(np.uint32(a.ticket.seed))
    if jax.tree.leaves(model_state):
        batches = jax.tree.map(lambda x: x[0], run.feed.first_batches(key[None], STATISTICS, run.placement))
        model_state = connectivity.recomputed(run.objective, params, model_state, batches, key)
    return loop.evaluate(
        run.objective,
        params,
        model_state,
        jnp.broadcast_to(key, (points,)),
        run.feed.held_out(run.placement),
        batch_size=run.config.evaluation.batch_size,
        mesh=run.placement.mesh,
        tickets=run.placement.parallel,
    )[metric]


def barriers(run: Examined) -> Iterator[Row]:
    """Loss barriers between the winning tickets of successive rounds, and between siblings where some are trained."""
    metric = loss_of(run.objective)
    for number in run.phases[1:]:
        for one in (one for one in run.phase(number) if one.ticket.arm == "winning"):
            for earlier in run.phase(number - 1):
                if _follows(one.ticket, earlier.ticket):
                    height = connectivity.barrier(losses_between(run, earlier, one, metric))
                    yield from rows(one.ticket, {ALL: height}, "barrier_rounds")
    for path in kept.begun([run.path / SIBLINGS]):
        with kept.opened(path) as store:
            copies = Examined(path, directories.config_of(path), run.objective, run.feed, store)
            for number in copies.phases:
                for a, b in itertools.combinations(copies.phase(number), 2):
                    if a.ticket.seed == b.ticket.seed:
                        height = connectivity.barrier(losses_between(copies, a, b, metric))
                        yield from rows(a.ticket, {ALL: height}, "barrier_siblings", other=b.ticket)


def _follows(ticket: Ticket, earlier: Ticket) -> bool:
    """Whether a winning ticket's mask was found by training another ticket."""
    first = ticket.level == 1 and earlier.arm == "dense"
    next_one = earlier.arm == "winning" and (earlier.pruned, earlier.level) == (ticket.pruned, ticket.level - 1)
    return earlier.seed == ticket.seed and (first or next_one)


def loss_of(objective: Objective) -> str:
    """The metric that a barrier is of: the first of which lower values are better; empty if there is none."""
    return next((name for name, better in objective.better if better == "lower"), "")


ANALYSES: dict[str, Analysis] = {
    "weights_left": Analysis(("weights_left",), weights_left, states=False),
    "overlap": Analysis(
        tuple(f"jaccard_{x}" for x in ("seeds", "seeds_expected", "seeds_aligned", "arms", "arms_expected")),
        overlaps,
        states=False,
    ),
    "signs": Analysis(("signs_snapshot", "signs_seeds", "signs_seeds_aligned"), sign_agreements),
    "distance": Analysis(("distance", "distance_relative"), distances),
    "dead_units": Analysis(("dead_units", "dead_share"), dead),
    "barrier": Analysis(("barrier_rounds", "barrier_siblings"), barriers),
}


def analyse(
    workdir: str | Path,
    only: Sequence[str] = (),
    copies: int = 0,
    every: int = 1,
    data_dir: str | Path = "",
    preemption: Preemption | None = None,
) -> None:
    """Fill analysis.csv of a search, an analysis at a time; what it had of an analysis before is replaced.

    Args:
      workdir: of a finished or unfinished search.
      only: keys of `ANALYSES`; empty for all that the run allows.
      copies: of every winning ticket, to be trained in `workdir/siblings` before; 0: none, what is there counts.
      every: rounds between two that get copies.
      data_dir: where TFDS datasets lie; the run's own where empty.
      preemption: what notices SIGTERM.

    Raises:
      Preempted: if SIGTERM came; the same call goes on with copies, and begins the analysis again that it was at.
      RunDirectoryError: if the run is going on, the data are not those that it had, or its copies are others.
      StorageError: if a kept state is damaged; running the configuration again repairs it.
      ValueError: if there is no search, no finished round, or it did not keep what an analysis needs.
    """
    workdir, preemption = Path(workdir), preemption or Preemption()
    stored = directories.config_of(workdir)
    if parts := experiments.of(stored).parts:
        raise ValueError(f"The run in {workdir} is made of others; analyse its search, {workdir / parts[0]}.")
    if not any("-winning-" in name for name in tickets.names(workdir)):
        raise ValueError(
            f"The run in {workdir} has no winning tickets; analyse a search (config.experiment 'imp' or 'transfer') "
            "with a finished round."
        )
    config = stored.copy_and_resolve_references().unlock()
    config.dataset.data_dir = str(data_dir) or stored.dataset.data_dir
    dataset = sources.load(**config.dataset)
    objective = build.objective(config, dataset.image_shape, dataset.classes)
    with kept.opened(workdir) as store, contextlib.closing(feed_of(config, dataset)) as feed:
        examined = Examined(workdir, config, objective, feed, store)
        chosen = _chosen(examined, only)
        if copies:
            own = siblings.configured(workdir, copies, every).unlock()
            own.dataset.data_dir = config.dataset.data_dir
            run(own.lock(), workdir / SIBLINGS, preemption)
        with contextlib.closing(RunDirectory(workdir, stored, dataset.fingerprint)):
            for name in chosen:
                found = []
                for row in ANALYSES[name].rows(examined):
                    preemption.check()
                    found.append(row)
                analysis.replace(workdir, ANALYSES[name].quantities, found)
                print(f"{name}: {len(found)} rows", flush=True)


def _chosen(run: Examined, only: Sequence[str]) -> list[str]:
    """The analyses that are made.

    Raises:
      ValueError: if one is unknown, or the run does not have what it needs.
    """
    for name in only:
        if name not in ANALYSES:
            raise ValueError(f"--only names {name!r}; it takes {', '.join(ANALYSES)}.")
    chosen = [name for name in ANALYSES if name in (only or ANALYSES)]
    if "barrier" in chosen and not loss_of(run.objective):
        why = f"{run.config.model.name} has no loss of which lower values are better, so there is no barrier of it"
        if only:
            raise ValueError(f"{why}; leave barrier out of --only.")
        print(f"{why}.")
        chosen.remove("barrier")
    if run.gone and (needing := [name for name in chosen if ANALYSES[name].states]):
        enough = ",".join(name for name, one in ANALYSES.items() if not one.states)
        raise ValueError(
            f"The run in {run.path} did not keep the states of rounds {run.gone[0]} to {run.gone[-1]}, which "
            f"{', '.join(needing)} needs; config.checkpoint.keep_states = 'all' keeps them, and --only={enough} does "
            "without."
        )
    return chosen
