"""The search of early birds: what it looks for, when, and where the tickets that it finds begin."""

from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from lotto_jax.experiments import compacting
from lotto_jax.objectives.state import Objective
from lotto_jax.pruning import channels
from lotto_jax.training import detection
from lotto_jax.training.feed import Feed

ARMS = ("dense", "early_bird", "early_bird_mixed")


class Origin(NamedTuple):
    """Where a ticket begins: the step whose dense state it is cut from, and whether its mask had settled there."""

    step: int
    found: bool


def search_of(config: ConfigDict, objective: Objective, feed: Feed) -> detection.Search:
    """What `config.early_bird` looks for in the networks of an objective."""
    eb = config.early_bird
    return detection.Search(
        objective.components if eb.pruned == "both" else (eb.pruned,),
        tuple(eb.compressions),
        eb.interval or feed.epoch_steps,
        channels.EarlyBird(eb.lookback, eb.threshold),
        eb.minimum,
        {name: group.size for name, group in compacting.norm_groups(objective, feed.batch).items()},
    )


def last_look(config: ConfigDict, steps: int, interval: int) -> int:
    """The step of the last mask that a ticket can be found at."""
    return int(config.early_bird.search_share * steps) // interval * interval


def origins(seen: detection.Detection, step: int, last: int) -> dict[tuple[int, int], Origin | None]:
    """Where the ticket of each (compression, seed), both by number, begins; None while that is not known.

    Args:
      seen: what the detectors of all seeds have found, leaves [seeds, compressions].
      step: that they have come to.
      last: of the last look.
    """
    found: dict[tuple[int, int], Origin | None] = {}
    for (seed, compression), at in np.ndenumerate(seen.found):
        settled = at != detection.NOT_FOUND and at <= last
        given_up = Origin(last, False) if step >= last else None
        found[compression, seed] = Origin(int(at), True) if settled else given_up
    return found


def check(config: ConfigDict, objective: Objective, feed: Feed) -> None:
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
    search = search_of(config, objective, feed)
    params = jax.eval_shape(objective.init, jax.random.key(0)).params
    try:
        scales = jax.eval_shape(search.scales, params)
    except ValueError as error:
        raise ValueError(f"{config.model.name} (pruned: {eb.pruned}) has no channels to remove: {error}") from error
    for compression in eb.compressions:
        try:
            jax.eval_shape(lambda s, c=compression: channels.channel_mask(s, c, eb.minimum), scales)
        except ValueError as error:
            raise ValueError(f"config.early_bird.compressions holds {compression}: {error}") from error
    looks = last_look(config, feed.steps, search.interval) // search.interval
    if looks < eb.lookback:
        raise ValueError(
            f"config.early_bird.lookback is {eb.lookback}, but a mask every {search.interval} steps gives {looks} in "
            f"the first {eb.search_share:.0%} of {feed.steps} steps; train longer, or lower lookback or interval."
        )
