"""What the image grids show: originals, and the outputs of some phases' tickets of the first seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from lotto_jax.runs import pictures
from lotto_jax.training import hosts, loop, packing, stacks, streams
from lotto_jax.training.streams import Stream

if TYPE_CHECKING:
    from lotto_jax.experiments.runner import Run

PHASES = 6  # at most so many are shown


def draw(run: Run) -> None:
    """Store the pictures of the phases that are kept and may be drawn; all tickets decode the same latent vectors."""
    kept = [number for number in run.rounds.steps() if run.phases[number].drawn]
    count = min(run.config.evaluation.images, len(run.feed.held_out(run.placement).label))
    count *= run.feed.dataset.pictures
    if not count or not kept:
        return
    batch = packing.unpack(jax.tree.map(lambda x: x[:count], run.feed.held_out(run.placement)))
    images = {"original": hosts.gathered(batch.image)}
    kinds = {"reconstructions": run.objective.reconstruct, "samples": run.objective.sample}
    for number in sorted({kept[i] for i in np.linspace(0, len(kept) - 1, PHASES).round().astype(int)}):
        finished = run.finished(number)
        first = finished.tickets[0].pruned
        chosen = [i for i, t in enumerate(finished.tickets) if t.seed == run.seeds[0] and t.pruned == first]
        keys = jnp.stack([streams.key(run.fresh.key[0], Stream.PICTURES)] * len(chosen))
        params, model_state = stacks.take((finished.params, finished.model_state), jnp.asarray(chosen))
        for kind, make in kinds.items():
            if make is None:
                continue
            mesh = run.placement.mesh
            outputs = loop.images(make, params, model_state, keys, batch, mesh=mesh, tickets="sequential")
            for i, output in zip(chosen, hosts.gathered(outputs), strict=True):
                ticket = finished.tickets[i]
                name = f"{kind}/{ticket.arm}/{ticket.removed:.6f}"
                images[name] = np.round(255 * np.nan_to_num(output)).astype(np.uint8)
    hosts.first(pictures.write_images, run.directory.path, images)
