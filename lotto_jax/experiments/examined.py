"""A search as its analyses see it: tickets, masks and states that it kept, read one round at a time."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from lotto_jax import pruning
from lotto_jax.experiments import compacting, selections
from lotto_jax.objectives.state import Objective
from lotto_jax.pruning.dependency import Group
from lotto_jax.runs import kept, tickets
from lotto_jax.runs.analysis import Row
from lotto_jax.runs.tickets import Ticket
from lotto_jax.training import checkpoints, loop, placement, stacks
from lotto_jax.training.feed import Feed
from lotto_jax.training.placement import Placement


class Trained(NamedTuple):
    """A ticket at its end: params, model state, and a mask that is scalar where its choice of components ends."""

    ticket: Ticket
    params: PyTree
    model_state: PyTree
    mask: pruning.Mask


class Examined:
    """A run directory that is read.

    Attributes:
      path: of the run.
      config: of the run.
      objective: of its networks.
      feed: its data.
      phases: numbers of the phases whose states are kept, ascending.
    """

    def __init__(self, path: Path, config: ConfigDict, objective: Objective, feed: Feed, store: checkpoints.Store):
        self.path, self.config, self.objective, self.feed, self._store = path, config, objective, feed, store
        self.phases: list[int] = store.steps()
        self.like: Any = jax.eval_shape(objective.init, jax.random.key(0))

    @property
    def gone(self) -> list[int]:
        """Phases that were finished and whose states are not kept."""
        return sorted(set(range(max(self.phases))) - set(self.phases))

    @functools.cached_property
    def placement(self) -> Placement:
        """The first device of this process."""
        wanted, batch = self.config.parallel.tickets, self.feed.batch_size
        return placement.choose(wanted, self.objective, 1, batch, jax.local_devices()[:1])

    @functools.cache  # noqa: B019  (lives as long as its command)
    def ones(self, pruned: str) -> pruning.Mask:
        """The all-True mask in which only the pruned components are prunable."""
        predicate = pruning.is_kernel if pruned == "both" else pruning.in_components(pruned)
        return pruning.ones(self.like.params, predicate)

    @functools.lru_cache(2)  # noqa: B019  (two rounds are compared)
    def phase(self, number: int) -> list[Trained]:
        """The tickets of a finished phase.

        Raises:
          StorageError: if it is damaged.
        """
        state, own = self._store.restore(number), kept.tickets_of(self._store, number)
        whole = jax.vmap(lambda _: self.ones("both"))(jnp.arange(len(own)))
        masks = stacks.unpack(state["mask"], whole)
        found = []
        for i, ticket in enumerate(own):
            params, model_state, mask = stacks.take((state["params"], state["model_state"], masks), jnp.int32(i))
            mask = jax.tree.map(lambda m, one: m if one.ndim else one, mask, self.ones(ticket.pruned))
            found.append(Trained(ticket, params, model_state, mask))
        return found

    def masks(self) -> Iterator[dict[Ticket, pruning.Mask]]:
        """The masks of every round; of rounds whose states are gone, those of winning and one-shot tickets.

        Random tickets, whose masks are the winning tickets', are left out.
        """
        by_round: dict[int, list[Ticket]] = {}
        for name in tickets.names(self.path):
            entries = tickets.read(self.path, name)[1]
            ticket = Ticket(*(entries[field] for field in ("pruned", "round", "arm", "seed", "sparsity", "unit")))
            by_round.setdefault(ticket.level, []).append(ticket)
        for number, stored in sorted(by_round.items()):
            found = {t: pruning.unpack(tickets.read(self.path, t.name)[0], self.ones(t.pruned)) for t in stored}
            own = self.phase(number) if number in self.phases else []
            others = (one for one in own if one.ticket.arm not in ("dense", "winning", "random", "one_shot"))
            yield found | {one.ticket: one.mask for one in others}

    @functools.cached_property
    def snapshot(self) -> dict[int, tuple[PyTree, PyTree]]:
        """Params and model state at the rewind step, by seed.

        Raises:
          StorageError: if the snapshot is damaged.
        """
        store = checkpoints.Store(self.path / kept.CHECKPOINTS / kept.SNAPSHOTS, alone=True)
        try:
            states: Any = store.restore(self.config.imp.rewind_step)
        finally:
            store.close()
        return self._by_seed(states["params"], states["model_state"])

    def initial(self, pruned: str, number: int) -> dict[int, tuple[PyTree, PyTree]]:
        """Params and model state that the random tickets of a round started from, by seed; made again."""
        salt = selections.salt(self.config, number, list(self.config.imp.pruned).index(pruned))
        states = loop.init(self.objective, jnp.asarray(self.config.seeds, jnp.uint32), jnp.uint32(salt))
        return self._by_seed(states.params, states.model_state)

    def _by_seed(self, *stacked: PyTree) -> dict[int, Any]:
        return {seed: stacks.take(stacked, jnp.int32(i)) for i, seed in enumerate(self.config.seeds)}

    @functools.cached_property
    def groups(self) -> Sequence[Group]:
        """Channels that can change places, of `{"params": params}`."""
        return compacting.channel_groups(self.objective, self.feed.batch).prunable


def rows(
    ticket: Ticket,
    found: dict[str, Any],
    quantity: str,
    value: Callable[[Any], Any] = lambda x: x,
    other: Ticket | None = None,
) -> list[Row]:
    """A quantity of a ticket, or of two tickets of one round, in every layer.

    Args:
      ticket: whose columns the rows have.
      found: by layer.
      quantity: its name.
      value: what of `found` it is.
      other: what the two differ in is written A/B.
    """
    pairs = [(ticket.arm, (other or ticket).arm), (str(ticket.seed), str((other or ticket).seed))]
    arm, seed = ("/".join(dict.fromkeys(pair)) for pair in pairs)
    own = ticket.pruned, ticket.level, ticket.removed, arm, seed
    return [Row(quantity, *own, layer, float(np.asarray(value(x)))) for layer, x in found.items()]
