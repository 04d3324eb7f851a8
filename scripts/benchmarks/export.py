"""Files and latencies of exported networks: dense, masked, compacted, and compacted with 8-bit kernels.

A network is saved by `lotto_jax.export`, and its program is loaded and run as another program would. The size is that
of both files. 8-bit rows need Qwix: `.venv-docs/bin/python scripts/bench.py export`.
"""

import functools
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from lotto_jax import export, pruning
from lotto_jax.models import compacted, dcgan
from lotto_jax.models.classifier import ResNet18
from scripts.benchmarks.common import Row, interleaved

BATCH, REPEATS, REMOVED = 16, 9, 0.5


def _networks() -> dict[str, tuple[nn.Module, Array]]:
    return {
        "DCGAN generator": (dcgan.Generator(), jax.random.normal(jax.random.key(1), (BATCH, 128))),
        "ResNet-18": (ResNet18(), jax.random.uniform(jax.random.key(1), (BATCH, 32, 32, 3))),
    }


def _saved(function: Callable[..., PyTree], variables: PyTree, inputs: Array) -> tuple[Callable[[], object], float]:
    """A call of the saved program, and the MB of its files."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        export.save(directory, function, variables, inputs)
        megabytes = sum(path.stat().st_size for path in directory.iterdir()) / 1e6
        program = jax.export.deserialize(bytearray((directory / export.PROGRAM).read_bytes()))
    weights = jax.device_put(export.named(variables))
    run = jax.jit(program.call)
    return lambda: jax.block_until_ready(run(weights, inputs)), megabytes


def run() -> Iterator[Row]:
    """For every network and form the size of its files and the time of a batch, against the dense form."""
    for name, (model, inputs) in _networks().items():
        apply = functools.partial(model.apply, train=False)
        variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), inputs)
        params = variables["params"]
        mask = pruning.global_prune(pruning.magnitude(params), pruning.ones(params), REMOVED)
        channels = pruning.channel_mask(
            jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)), pruning.batch_norm_scales(params)), REMOVED
        )
        small = pruning.compact(apply, variables, channels, inputs).variables
        forms: dict[str, tuple[Callable[..., PyTree], PyTree]] = {
            "dense": (apply, variables),
            f"{REMOVED:.0%} of the weights masked": (apply, {**variables, "params": pruning.apply(params, mask)}),
            f"{REMOVED:.0%} of the channels cut out": (compacted.following(apply), small),
        }
        rounded = f"{REMOVED:.0%} of the channels cut out, 8-bit kernels"
        if importlib.util.find_spec("qwix"):
            forms[rounded] = export.int8(compacted.following(apply), small)
        found = {form: _saved(function, weights, inputs) for form, (function, weights) in forms.items()}
        times = interleaved({form: call for form, (call, _) in found.items()}, REPEATS, warmup=2)
        for form, (_, megabytes) in found.items():
            share, slower = megabytes / found["dense"][1], times[form] / times["dense"]
            yield Row(f"{name}, {form}: files", megabytes, "MB", "of the dense files", share)
            yield Row(f"{name}, {form}: batch of {BATCH}", 1e3 * times[form], "ms", "of the dense time", slower)
        if rounded not in found:
            yield Row(f"{name}, {rounded}", None, "MB", "needs pip install 'lotto_jax[int8]'")
