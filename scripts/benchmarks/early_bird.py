"""Early-bird tickets on DCGAN, batch 64: what a look for one costs, and the step of compacted networks.

At the paper's width by default; `python -m scripts.benchmarks.early_bird WIDTH COMPRESSION...` takes others.
"""

import itertools
import sys
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import optax

from lotto_jax import pruning
from lotto_jax.experiments import compacting, costs
from lotto_jax.models import dcgan
from lotto_jax.objectives import adversarial
from lotto_jax.objectives.state import Batch, Objective, TrainState
from lotto_jax.training import detection
from scripts.benchmarks.common import Row, interleaved

BATCH, SHAPE, REPEATS = 64, (32, 32, 3), 7
COMPRESSIONS = (0.5, 0.7, 0.8, 0.9, 0.95)


def _stepping(objective: Objective, state: TrainState, batch: Batch) -> tuple[Callable[[], object], float]:
    """A call that makes a train step under an all-True mask, and the MiB that it needs at most."""
    mask, key = pruning.ones(state.params), jax.random.key(2)
    step = jax.jit(objective.step, donate_argnums=0).lower(state, mask, batch, key).compile()
    current = [jax.tree.map(jnp.copy, state)]

    def call() -> object:
        current[0], metrics = step(current[0], mask, batch, key)
        return jax.block_until_ready((current[0], metrics))

    return call, costs.memory(step)


def run(width: int = 64, compressions: tuple[float, ...] = COMPRESSIONS) -> Iterator[Row]:
    """Rows: the dense step, a look, and for every compression the compacted step against its share of the FLOPs."""
    generator, discriminator = dcgan.Generator(width), dcgan.Discriminator(width)
    adam = optax.adam(2e-4, b1=0.5)
    objective = adversarial.make(generator, discriminator, adam, adam, SHAPE)
    state = objective.init(jax.random.key(0))
    batch = Batch(jax.random.bits(jax.random.key(1), (BATCH, *SHAPE), jnp.uint8), jnp.zeros(BATCH, jnp.int32))
    dense, memory = _stepping(objective, state, batch)
    flops = costs.step_flops(objective, state, batch)

    search = detection.Search(objective.components, (0.5,), interval=1)
    arguments = search.init(state.params), search.scales(state.params), state.step
    look = jax.jit(search.look)
    times = interleaved({"dense": dense, "look": lambda: jax.block_until_ready(look(*arguments))}, REPEATS)
    yield Row(f"DCGAN, width {width}: train step", 1e3 * times["dense"], "ms")
    yield Row("  memory of the step", memory, "MiB")
    share = times["look"] / times["dense"]
    yield Row(
        "  a look (mask and distances)", 1e3 * times["look"], "ms", "of a step, if made at each", share, 0.01, "lower"
    )

    smaller = compacting.of_any_width(objective)
    for compression, round_to in itertools.product(compressions, (1, 8)):
        mask = pruning.channel_mask(search.scales(state.params), compression)
        small, _ = compacting.compact(objective, state, mask, batch, fresh=False, round_to=round_to)
        step, own_memory = _stepping(smaller, small, batch)
        times = interleaved({"dense": dense, "small": step}, REPEATS)
        saved = 1 - costs.step_flops(smaller, small, batch) / flops
        ratio = (1 - times["small"] / times["dense"]) / saved
        peer = f"time saved / FLOPs saved ({saved:.1%})"
        name = f"  {compression:.0%} of the channels removed"
        name += f", widths rounded to {round_to}" if round_to > 1 else ""
        yield Row(f"{name}: train step", 1e3 * times["small"], "ms", peer, ratio, 0.9)
        yield Row("    memory of the step", own_memory, "MiB", "of the dense step's", own_memory / memory)


if __name__ == "__main__":
    from scripts.bench import line

    width, *compressions = sys.argv[1:] or ["64"]
    for row in run(int(width), tuple(map(float, compressions)) or COMPRESSIONS):
        print(line(row), flush=True)
