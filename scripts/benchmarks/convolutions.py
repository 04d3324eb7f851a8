"""Single layers of the networks, forward and both derivatives, against PyTorch's: where a train step's time goes."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from lotto_jax.models import convolutions
from scripts.benchmarks.common import Row, ask_torch, interleaved

BATCH, REPEATS = 64, 7
# name: input size, input channels, output channels, kernel, stride
LAYERS = {
    "3x3/1, 128 at 32x32 (ResNet)": (32, 128, 128, 3, 1),
    "3x3/1, 128 at 16x16 (SNGAN, ResNet)": (16, 128, 128, 3, 1),
    "3x3/1, 512 at 4x4 (SNGAN)": (4, 512, 512, 3, 1),
    "4x4/2, 64 to 128 at 16x16 (DCGAN)": (16, 64, 128, 4, 2),
    "4x4/2, 256 to 512 at 4x4 (DCGAN)": (4, 256, 512, 4, 2),
}


def _calls(size: int, inputs: int, outputs: int, kernel: int, stride: int) -> dict[str, Callable[[], object]]:
    x = jax.random.normal(jax.random.key(0), (BATCH, size, size, inputs))
    w = jax.random.normal(jax.random.key(1), (kernel, kernel, inputs, outputs))

    def conv(x: jax.Array, w: jax.Array) -> jax.Array:
        return convolutions.conv(x, w, (stride, stride), "SAME")

    g = jnp.ones_like(conv(x, w))
    functions = {
        "forward": jax.jit(conv),
        "input gradient": jax.jit(lambda x, w: jax.vjp(lambda x: conv(x, w), x)[1](g)),
        "kernel gradient": jax.jit(lambda x, w: jax.vjp(lambda w: conv(x, w), w)[1](g)),
    }
    return {name: functools.partial(lambda f: jax.block_until_ready(f(x, w)), f) for name, f in functions.items()}


def run() -> Iterator[Row]:
    """For every layer milliseconds of forward, input gradient and kernel gradient, and PyTorch's over ours."""
    for name, (size, inputs, outputs, kernel, stride) in LAYERS.items():
        times = interleaved(_calls(size, inputs, outputs, kernel, stride), REPEATS)
        arguments = map(str, (BATCH, size, inputs, outputs, kernel, stride, REPEATS))
        torch = ask_torch("convolutions_torch.py", *arguments)
        flops = 2 * BATCH * (size // stride) ** 2 * kernel**2 * inputs * outputs
        for part, seconds in times.items():
            peer = "PyTorch (no .venv-parity)"
            if torch is not None:
                peer = f"PyTorch, {1e3 * torch[part]:.3g} ms, {flops / torch[part] / 1e9:.0f} GFLOP/s"
            label = f"{name}: {part}, {flops / seconds / 1e9:.0f} GFLOP/s"
            yield Row(label, 1e3 * seconds, "ms", peer, torch[part] / seconds if torch else None)
