"""The training loop on the paper's linear autoencoder (784-128-784, batch 128) against PyTorch and the matmul peak."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lotto_jax import pruning
from lotto_jax.models.autoencoder import LinearAutoencoder
from lotto_jax.objectives import reconstruction
from lotto_jax.training import loop, mesh, packing
from lotto_jax.training.stacks import masked
from scripts.benchmarks.common import Row, ask_torch, interleaved, seconds

BATCH, SIDE, LATENT, STEPS, TICKETS = 128, 28, 128, 100, 10

# A search of N rounds on the digits; prints its lowerings (compilations) after the first round, and its peak memory.
SEARCH = """
import json, sys, tempfile
import jax
from lotto_jax import config as base
from lotto_jax.experiments.run import run
config = base.default()
config.train.epochs, config.imp.rounds, config.evaluation.images = 5, int(sys.argv[1]), 0
count = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **kw: count.append(name) if "jaxpr_to_mlir_module" in name else None)
with tempfile.TemporaryDirectory() as directory:
    run(config, directory + "/run")
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0])  # unlike ru_maxrss, not inherited from the parent
print(json.dumps({"compilations": len(count), "mib": peak / 1024}))
"""


def _training(tickets: int, prunable: pruning.masks.Prunable) -> Callable[[], object]:
    """A call that trains `tickets` tickets for STEPS steps. Nothing prunable is the unmasked loop: apply is a no-op."""
    objective = reconstruction.make(LinearAutoencoder(LATENT), optax.adam(1e-3), (SIDE, SIDE, 1))
    states = loop.init(objective, jnp.arange(tickets, dtype=jnp.uint32), jnp.uint32(0))

    def half(params: pruning.Params) -> pruning.Mask:
        return pruning.global_prune(pruning.magnitude(params), pruning.ones(params, prunable), 0.5)

    mask = jax.vmap(half)(states.params)
    image = np.random.default_rng(0).integers(0, 256, (60_000, SIDE, SIDE, 1), np.uint8)
    data = jax.device_put(packing.pack(image, np.zeros(60_000, np.int32)))
    on = mesh.make(tickets, BATCH, devices=1)
    current = [masked(states, mask)]

    def train() -> object:
        state, log, _ = loop.train(
            objective,
            current[0],
            mask,
            data,
            jnp.int32(0),
            jnp.int32(STEPS),
            batch_size=BATCH,
            length=STEPS,
            mesh=on,
        )
        current[0] = jax.block_until_ready(state)
        return log

    return train


def _search(rounds: int) -> dict[str, float]:
    result = subprocess.run(
        [sys.executable, "-c", SEARCH, str(rounds)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tempfile.gettempdir(),
    )
    return json.loads(result.stdout.splitlines()[-1])


def run() -> Iterator[Row]:
    """Rows: masks, the ticket axis, PyTorch, the peak; then compilations and memory of whole searches."""
    nothing: pruning.masks.Prunable = lambda path, leaf: False  # noqa: E731
    calls = {
        "masked": _training(1, pruning.is_kernel),
        "unmasked": _training(1, nothing),
        "tickets": _training(TICKETS, pruning.is_kernel),
        "unmasked tickets": _training(TICKETS, nothing),
    }
    times = {name: t / STEPS for name, t in interleaved(calls, repeats=9).items()}
    yield Row("linear AE step, masked", times["masked"] * 1e3, "ms")
    overhead = times["masked"] / times["unmasked"] - 1
    yield Row("  unmasked", times["unmasked"] * 1e3, "ms", "overhead of masks", overhead, 0.02, "lower")
    overhead = times["tickets"] / times["unmasked tickets"] - 1
    milliseconds = times["unmasked tickets"] * 1e3
    yield Row(f"  {TICKETS} tickets, unmasked", milliseconds, "ms", "overhead of masks", overhead, 0.02, "lower")
    share = times["tickets"] / times["masked"]
    yield Row(
        f"  {TICKETS} tickets on the ticket axis",
        times["tickets"] * 1e3,
        "ms",
        f"single runs it costs ({TICKETS} would be equal)",
        share,
        0.7 * TICKETS,
        "lower",
    )
    torch = ask_torch("train_torch.py", *map(str, (BATCH, SIDE * SIDE, LATENT, STEPS)))
    if torch is None:
        yield Row("  the same loop in PyTorch", None, "ms", "needs scripts/test.sh --parity")
    else:
        ratio = torch["seconds"] / (times["tickets"] / TICKETS)
        yield Row(
            "  the same loop in PyTorch", torch["seconds"] * 1e3, "ms", "PyTorch / a ticket on the axis", ratio, 1.5
        )
        yield Row("", torch["seconds"] * 1e3, "ms", "PyTorch / a single ticket", torch["seconds"] / times["masked"])

    # Both layers forward, both weight gradients, and the decoder's input gradient.
    flops = 5 * 2 * BATCH * SIDE * SIDE * LATENT
    matrix = jax.random.normal(jax.random.key(1), (2048, 2048))
    multiply = jax.jit(jnp.matmul)
    peak = 2 * 2048**3 / seconds(lambda: jax.block_until_ready(multiply(matrix, matrix)))
    reached = flops * TICKETS / times["tickets"]
    yield Row("  matmul rate reached", reached / 1e9, "GFLOP/s", "share of a 2048^3 matmul's", reached / peak)

    short, long = _search(2), _search(20)
    ratio = long["compilations"] / short["compilations"]
    yield Row("compilations of a 20-round search", long["compilations"], "", "a 2-round search", ratio, 1.0, "lower")
    yield Row(
        "peak memory of a 20-round search",
        long["mib"],
        "MiB",
        "a 2-round search",
        long["mib"] / short["mib"],
        1.1,
        "lower",
    )
