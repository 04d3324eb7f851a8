"""Four tickets in the same operations against one after the other: what `config.parallel.tickets = "auto"` goes by."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lotto_jax import pruning
from lotto_jax.models import autoencoder, dcgan
from lotto_jax.objectives import adversarial, reconstruction
from lotto_jax.objectives.state import Objective
from lotto_jax.training import loop, mesh, packing
from scripts.benchmarks.common import Row, interleaved

BATCH, STEPS, TICKETS, WIDTH, SHAPE = 64, 4, 4, 16, (32, 32, 3)

OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "linear AE": lambda: reconstruction.make(autoencoder.LinearAutoencoder(), optax.adam(1e-3), SHAPE),
    "conv AE, width 16": lambda: reconstruction.make(autoencoder.ConvAutoencoder(width=WIDTH), optax.adam(1e-3), SHAPE),
    "DCGAN, width 16": lambda: adversarial.make(
        dcgan.Generator(WIDTH), dcgan.Discriminator(WIDTH), optax.adam(2e-4), optax.adam(2e-4), SHAPE
    ),
}


def _training(objective: Objective, tickets: loop.Parallel) -> Callable[[], object]:
    """A call that trains all tickets for STEPS steps."""
    states = loop.init(objective, jnp.arange(TICKETS, dtype=jnp.uint32), jnp.uint32(0))
    mask = jax.vmap(lambda params: pruning.ones(params))(states.params)
    image = np.random.default_rng(0).integers(0, 256, (1024, *SHAPE), np.uint8)
    data = jax.device_put(packing.pack(image, np.zeros(1024, np.int32)))
    on = mesh.make(1, BATCH, devices=1)
    current = [states]

    def train() -> object:
        bounds = jnp.int32(0), jnp.int32(STEPS)
        current[0], log, _ = loop.train(
            objective, current[0], mask, data, *bounds, batch_size=BATCH, length=STEPS, mesh=on, tickets=tickets
        )
        return jax.block_until_ready((current[0], log))

    return train


def run() -> Iterator[Row]:
    """For every network the time of a step of all tickets, one by one, and how much longer it takes together."""
    for name, make in OBJECTIVES.items():
        objective = make()
        modes: tuple[loop.Parallel, ...] = ("sequential", "vmap")
        times = interleaved({mode: _training(objective, mode) for mode in modes}, repeats=5)
        step = {mode: 1e3 * seconds / STEPS for mode, seconds in times.items()}
        peer = f"vmap, {step['vmap']:.3g} ms"
        yield Row(
            f"{name}: {TICKETS} tickets, sequential", step["sequential"], "ms", peer, step["vmap"] / step["sequential"]
        )
