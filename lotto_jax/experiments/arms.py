"""The arms of a round: which states and which mask its tickets start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
from jaxtyping import Array, Int, Key

from lotto_jax import pruning
from lotto_jax.experiments.protocol import Stack, join
from lotto_jax.objectives.state import TrainState
from lotto_jax.training import streams
from lotto_jax.training.streams import Stream

if TYPE_CHECKING:
    from lotto_jax.experiments.runner import Run


class Round(NamedTuple):
    """One choice of pruned components in one round.

    Attributes:
      pruned: the choice.
      number: of the round, from 1.
      salt: of random numbers that this choice and round have for themselves.
      mask: of the winning tickets, for every seed; or of what may be pruned, where there are no winning tickets.
      sparsity: of the tickets, for every seed.
      rewound: the snapshot.
    """

    pruned: str
    number: int
    salt: int
    mask: pruning.Mask
    sparsity: Array
    rewound: TrainState


class Arm(NamedTuple):
    """Where the tickets of an arm begin, at initialization or at the rewind step, and with which states and mask."""

    begins: Literal["initialization", "rewind"]
    tickets: Callable[[Run, Round], tuple[TrainState, pruning.Mask]]


def winning(run: Run, here: Round) -> tuple[TrainState, pruning.Mask]:
    """The mask of iterative pruning, from the snapshot."""
    return here.rewound, here.mask


def random(run: Run, here: Round) -> tuple[TrainState, pruning.Mask]:
    """The same mask, from a fresh initialization."""
    return run.initial(here.salt), here.mask


def random_pruned(run: Run, here: Round) -> tuple[TrainState, pruning.Mask]:
    """A random mask of the same sparsity in every layer, from the snapshot."""
    return here.rewound, shuffle(run.fresh.key, here.salt, here.mask)


@jax.jit
def shuffle(keys: Key[Array, "tickets"], salt: Int[Array, ""], mask: pruning.Mask) -> pruning.Mask:
    """Random masks, each with as many entries left in every layer as one of the stacked masks."""

    def one(key: Array, ticket_mask: pruning.Mask) -> pruning.Mask:
        return pruning.random_like(streams.key(key, Stream.SHUFFLE, salt), ticket_mask)

    return jax.vmap(one)(keys, mask)


def stacks_of(run: Run, arms: dict[str, Arm], rounds: list[Round]) -> tuple[Stack | None, Stack | None]:
    """The tickets of every arm in every choice of pruned components: head at initialization, body at the snapshot."""
    parts: dict[str, list[Stack]] = {"initialization": [], "rewind": []}
    for here in rounds:
        for name, arm in arms.items():
            states, mask = arm.tickets(run, here)
            parts[arm.begins].append(run.stack(here.pruned, here.number, name, states, mask))
    head, body = (join(*parts[begins]) if parts[begins] else None for begins in ("initialization", "rewind"))
    return head, body


def work(run: Run, arms: dict[str, Arm], choices: int, join_step: int) -> int:
    """Ticket-steps of a round."""
    before = sum(arm.begins == "initialization" for arm in arms.values()) * join_step
    return choices * len(run.seeds) * (before + len(arms) * (run.steps - join_step))
