"""Tickets on 1 to 8 host devices, what saving and going on with a run cost, and what the compilation cache saves.

More devices than cores cannot be faster: they take turns.
"""

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from lotto_jax import config as base
from lotto_jax.models import dcgan
from lotto_jax.objectives import adversarial
from lotto_jax.runs import curves, kept
from lotto_jax.training import checkpoints, loop
from scripts.benchmarks.common import ROOT, Row

DEVICES, TICKETS, SAVES = (1, 2, 4, 8), 8, 5


def get_config() -> ConfigDict:
    """The run that is timed: eight dense convolutional autoencoders of width 16 on digits of 32x32."""
    config = base.default()
    config.experiment = "dense"
    config.seeds = tuple(range(TICKETS))
    config.dataset.image_size = 32
    config.model = {"name": "conv_autoencoder", "width": 16}
    config.train.batch_size = 64
    config.train.epochs = 3
    config.evaluation.images = 0
    config.log_every = 1
    return config


def _start(workdir: Path, devices: int, cache: Path, *fields: str) -> subprocess.Popen[str]:
    own = {
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-c", "from lotto_jax.cli import main; main()", "run", f"--config={__file__}"]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}", *fields],
        cwd=ROOT,
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _timed(workdir: Path, devices: int, cache: Path) -> tuple[float, float]:
    """Ticket-steps a second and seconds of compilation of a run."""
    process = _start(workdir, devices, cache)
    output = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(output)
    with kept.opened(workdir) as finished:
        compilation = finished.meta(0)["compilation_seconds"]
    with contextlib.closing(checkpoints.Store(workdir / kept.CHECKPOINTS / "chunks")) as chunks:
        clock = chunks.meta(chunks.steps()[-1])["clock"]
    return clock["warm_steps"] / clock["warm_seconds"], compilation


def _first_point(process: subprocess.Popen[str], workdir: Path, before: int) -> float:
    """Seconds until the curves of a run have more than so many points; then it is told to stop."""
    began = time.perf_counter()
    while process.poll() is None and len(curves.read(workdir)) <= before:
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    process.send_signal(signal.SIGTERM)
    output = process.communicate()[0]
    if process.returncode != 128 + signal.SIGTERM:
        raise RuntimeError(output)
    return seconds


def _saving(directory: Path) -> float:
    """Median seconds that a save keeps three tickets of the paper's DCGAN from training."""
    objective = adversarial.make(
        dcgan.Generator(), dcgan.Discriminator(), optax.adam(2e-4), optax.adam(2e-4), (32, 32, 3)
    )
    states = jax.block_until_ready(loop.init(objective, jnp.arange(3, dtype=jnp.uint32), jnp.uint32(0)))
    seconds = []
    with contextlib.closing(checkpoints.Store(directory, keep=2)) as store:
        for step in range(1 + SAVES):  # the first compiles the checksum
            began = time.perf_counter()
            store.save(step, states, {})
            seconds.append(time.perf_counter() - began)
            store.steps()  # waits until it is committed, as a minute of training would
    return statistics.median(seconds[1:])


def run() -> Iterator[Row]:
    """Rows: ticket-steps by devices, the stall of a save, the time to go on, and compilation."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        single = 0.0
        cold = {}
        for devices in DEVICES:
            rate, cold[devices] = _timed(root / f"on{devices}", devices, root / "cache")
            single = single or rate
            peer = f"1 device; {cores} cores" if devices <= cores else f"1 device; more than the {cores} cores"
            label = f"{TICKETS} tickets on {devices} host device{'s' if devices > 1 else ''}"
            yield Row(label, rate, "ticket-steps/s", peer, rate / single)
        _, warm = _timed(root / "again", 1, root / "cache")
        yield Row("compiling the train program", cold[1], "s")
        yield Row("  with the persistent cache", warm, "s", "without it", warm / cold[1])
        longer = root / "long", 1, root / "cache", "--config.train.epochs=1000"
        started = _first_point(_start(*longer), root / "long", 0)
        points = len(curves.read(root / "long"))
        resumed = _first_point(_start(*longer), root / "long", points)
        yield Row("from the command to a first step", started, "s")
        yield Row("  going on with a run", resumed, "s", "the first start", resumed / started)
        every = base.default().checkpoint.every_seconds
        stall = _saving(root / "saves")
        peer = f"{every:g} s between two saves"
        yield Row("training waits for a save, 3 tickets of DCGAN", stall, "s", peer, stall / every, 0.02, "lower")
