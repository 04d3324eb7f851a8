"""Streamed input: our gather against grain's, and the memory and the rate of four hosts with an ImageNet-sized index.

The hosts are processes of this machine with eight devices each, which make up one mesh. Examples are numbered up to
1,281,167; their bytes come from a smaller file, mapped, in which the numbers start over.
"""

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lotto_jax.data import streaming
from lotto_jax.data.sources import Split
from lotto_jax.data.streaming import Stream
from lotto_jax.training import loop
from scripts.benchmarks.common import ROOT, Row, interleaved

EXAMPLES, STORED, SHAPE, BATCH = 1_281_167, 16_384, (64, 64, 3), 64
HOSTS, DEVICES, SECONDS = 4, 8, 40.0
PEER_BATCHES = 64  # a timed call of the comparison
# Of a step of DCGAN at 32x32 in bfloat16 on one TPU v5e, by `lotto-jax preflight` (docs/input.md).
STEP_SECONDS = 2.0e-3
CONSUMED = DEVICES * BATCH / STEP_SECONDS  # images/s of a host whose eight chips have tickets of different seeds


def read(path: Path) -> Split:
    """It, mapped as the cache is."""
    return Split(np.asarray(np.load(path, mmap_mode="r")), np.arange(STORED, dtype=np.int32))


def numbers(keys: jax.Array, steps: int) -> Callable[[int], np.ndarray]:
    """Examples of the steps from a given one on, [steps, orders, batch], where they are stored."""
    return lambda first: (
        np.asarray(loop.example_numbers(keys, jnp.int32(first), steps=steps, n=EXAMPLES, batch_size=BATCH)) % STORED
    )


def run() -> Iterator[Row]:
    """Rows: images/s against grain, what hosts deliver, and their memory over time."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "images.npy"
        np.lib.format.open_memmap(path, "w+", np.uint8, (STORED, *SHAPE))  # of zeros, which take no disk
        with contextlib.closing(Stream()) as stream:
            yield _against_grain(read(path), stream)
        yield from _hosts(path)


def _against_grain(split: Split, stream: Stream) -> Row:
    """Batches of one ticket on the host, by our stream and by grain; the faster of two ways to read with grain."""
    index = numbers(jax.random.key(0)[None], PEER_BATCHES)

    def ours() -> None:
        for image in stream.chunks(lambda first: split.image.take(index(first), axis=0), (0,)):
            assert image.shape == (PEER_BATCHES, 1, BATCH, *SHAPE)

    name, count = f"stream, batches of {BATCH}, 64x64x3", PEER_BATCHES * BATCH
    if importlib.util.find_spec("grain") is None:
        return Row(name, count / interleaved({"": ours})[""], "images/s", "grain: needs pip install grain")
    import grain

    examples = grain.MapDataset.source(split.image).shuffle(seed=0).batch(BATCH)

    def theirs(threads: int) -> Callable[[], None]:
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=16)

        def read_batches() -> None:
            for batch, _ in zip(examples.to_iter_dataset(options), range(PEER_BATCHES), strict=False):
                assert batch.shape == (BATCH, *SHAPE)

        return read_batches

    seconds = interleaved({"ours": ours, "grain": theirs(0), "grain, 16 threads": theirs(16)})
    rate = {way: count / value for way, value in seconds.items()}
    best = max(rate["grain"], rate["grain, 16 threads"])
    return Row(name, rate["ours"], "images/s", f"grain, {best:,.4g} images/s", rate["ours"] / best, 1.0)


def _hosts(path: Path) -> Iterator[Row]:
    """All hosts at once; the slowest rate and the largest memory of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(DEVICES), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "scripts.benchmarks.input_host", str(path), coordinator]
    processes = [
        subprocess.Popen([*command, str(i)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for i in range(HOSTS)
    ]
    outputs = [process.communicate(timeout=20 * SECONDS)[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("A host failed; its message is above.")
    found = [json.loads(output.splitlines()[-1]) for output in outputs]
    wall, core = (min(host[key] for host in found) for key in ("images_per_second", "images_per_core_second"))
    peer = f"a v5e-8 host, {CONSUMED:,.0f} images/s"
    yield Row(f"a host, {HOSTS} of them on {os.cpu_count()} cores", wall, "images/s", peer, wall / CONSUMED)
    yield Row("  in a second of one core", core, "images/s", peer, core / CONSUMED)
    cores = CONSUMED / core
    yield Row("  cores that a v5e-8 host needs", cores, "", "threads of the stream", cores, streaming.DEPTH, "lower")
    memory = np.array([host["mib"] for host in found]).max(axis=0).tolist()  # [quarters of the time]
    for quarter, mib in enumerate(memory):
        name = f"  most memory from {quarter * SECONDS / 4:.0f} to {(quarter + 1) * SECONDS / 4:.0f} s"
        yield Row(name, mib, "MiB", "the first quarter", mib / memory[0], 1.1, "lower")


def host(path: Path, coordinator: str, number: int) -> dict[str, object]:
    """One of the hosts: takes chunks as fast as they come, and looks at its memory, mapped files left out."""
    from lotto_jax.training import mesh, packing, shards

    jax.distributed.initialize(coordinator, HOSTS, number)
    on = mesh.make(HOSTS * DEVICES, BATCH)
    split, order = read(path), np.arange(HOSTS * DEVICES)
    examples = packing.pack(*split)
    divided = shards.divide(order, BATCH, mesh.processes(on))
    stream, keys = Stream(), jax.vmap(jax.random.key)(jnp.asarray(order))
    steps = streaming.chunk_steps(divided.host_examples * split.image[0].nbytes)
    index = numbers(keys[divided.of_process(number)], steps)

    def gather(first: int) -> packing.Examples:
        chosen = index(first)
        return jax.block_until_ready(jax.tree.map(lambda array: shards.gather(array, chosen, divided, on), examples))

    chunks = stream.chunks(gather, range(0, 2**30, steps))
    next(chunks)  # compiles
    began, used, seen = time.monotonic(), time.process_time(), [0.0] * 4
    count, elapsed = 0, 0.0
    while elapsed < SECONDS:
        next(chunks)
        count, elapsed = count + 1, time.monotonic() - began
        quarter = min(int(4 * elapsed / SECONDS), 3)
        seen[quarter] = max(seen[quarter], _mib())
    images = count * steps * divided.host_examples
    stream.close()
    return {
        "images_per_second": images / elapsed,
        "images_per_core_second": images / (time.process_time() - used),
        "mib": seen,
    }


def _mib() -> float:
    """Resident memory that belongs to no file."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024
