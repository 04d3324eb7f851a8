"""A full, masked train step of every network, at the paper's width and batch 64, against PyTorch and Flax.

The UNet of DDPM is measured with batches of 32, and its samples by DDIM in 50 steps.
"""

import contextlib
import gc
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lotto_jax.experiments import build
from lotto_jax.models import autoencoder, dcgan, layers, resnet_gan, sngan, unet, vae
from lotto_jax.objectives import adversarial, diffusion, elbo, reconstruction
from lotto_jax.objectives.state import Batch, Objective
from lotto_jax.pruning import masks
from scripts.benchmarks.common import Row, ask_torch, interleaved

BATCH = 64
BATCHES = {"unet": 32, "wgan": 5 * BATCH}  # others than BATCH
REPEATS = 7
SHAPE = (32, 32, 3)


def _adam() -> optax.GradientTransformation:
    return optax.adam(2e-4, b1=0.5)


def _gan(generator: nn.Module, discriminator: nn.Module, loss: Any) -> Objective:
    return adversarial.make(generator, discriminator, _adam(), _adam(), SHAPE, loss=loss)


OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "conv_ae": lambda: reconstruction.make(autoencoder.ConvAutoencoder(), optax.adam(1e-3), SHAPE),
    "vae": lambda: elbo.make(vae.conv_vae(), optax.adam(1e-3), SHAPE),
    "resnet_vae": lambda: elbo.make(vae.resnet_vae(), optax.adam(1e-3), SHAPE),
    "dcgan": lambda: _gan(dcgan.Generator(), dcgan.Discriminator(), "bce"),
    "wgan": lambda: adversarial.make(
        dcgan.Generator(),
        dcgan.Discriminator(),
        build.OPTIMIZERS["rmsprop"](5e-5),
        build.OPTIMIZERS["rmsprop"](5e-5),
        SHAPE,
        loss="wasserstein",
        critic_steps=5,
        weight_clip=0.01,
    ),
    "sngan": lambda: _gan(dcgan.Generator(), sngan.Discriminator(), "hinge"),
    "unet": lambda: diffusion.make(unet.UNet(), optax.adam(2e-4), SHAPE),
    "resnet_dcgan": lambda: _gan(resnet_gan.Generator(), resnet_gan.Discriminator(), "hinge"),
}


def _step(name: str, masked: bool, plain: bool = False) -> tuple[Callable[[], object], float]:
    """A call that makes a train step, with half of the weights pruned or no mask; seconds to compile it."""
    objective = OBJECTIVES[name]()
    state = jax.tree.map(jnp.copy, jax.jit(objective.init)(jax.random.key(0)))  # a moving average begins as the params
    half = lambda path, leaf: masked and masks.is_kernel(path, leaf)  # noqa: E731
    mask = masks.ones(state.params, half)
    mask = jax.tree.map(lambda m: m if m.ndim == 0 else jax.random.bernoulli(jax.random.key(1), 0.5, m.shape), mask)
    size = BATCHES.get(name, BATCH)
    images = np.random.default_rng(0).integers(0, 256, (size, *SHAPE), np.uint8)
    batch = Batch(jnp.asarray(images), jnp.zeros(size, jnp.int32))
    start = time.perf_counter()
    with layers.plain_lowering() if plain else contextlib.nullcontext():
        step = jax.jit(objective.step, donate_argnums=0).lower(state, mask, batch, jax.random.key(2)).compile()
    seconds = time.perf_counter() - start

    def call() -> object:
        nonlocal state
        state, metrics = step(state, mask, batch, jax.random.key(2))
        return jax.block_until_ready((state, metrics))

    return call, seconds


def _seconds_a_sample() -> float:
    """Seconds that a sample of the UNet takes, of a batch of 8."""
    objective = OBJECTIVES["unet"]()
    state, batch = objective.init(jax.random.key(0)), Batch(jnp.zeros((8, *SHAPE), jnp.uint8), jnp.zeros(8, jnp.int32))
    assert objective.sample is not None
    draw = jax.jit(objective.sample)
    call = lambda: jax.block_until_ready(draw(state.params, state.model_state, batch, jax.random.key(1)))  # noqa: E731
    return interleaved({"": call}, 1)[""] / 8


def run(names: tuple[str, ...] = tuple(OBJECTIVES)) -> Iterator[Row]:
    """The rows of this benchmark; on CPU only, where the layers have a form of their own."""
    for name in names:
        call, compiling = _step(name, masked=True)
        unmasked, _ = _step(name, masked=False)
        # PyTorch before and after, since the machine's speed drifts.
        size = str(BATCH if name == "wgan" else BATCHES.get(name, BATCH))  # of a critic step
        peers = [ask_torch("torch_networks.py", name, size, str(REPEATS))]
        times = interleaved({"masked": call, "unmasked": unmasked}, REPEATS)
        peers.append(ask_torch("torch_networks.py", name, size, str(REPEATS)))
        milliseconds = 1e3 * times["masked"]
        found = [p["seconds"] for p in peers if p is not None]
        torch = float(np.mean(found)) if found else None
        peer = f"PyTorch {1e3 * torch:,.0f} ms" if torch else "PyTorch (no .venv-parity)"
        ratio = torch / times["masked"] if torch else None
        yield Row(f"{name}: train step", milliseconds, "ms", peer, ratio, 1.0)
        overhead = times["masked"] / times["unmasked"]
        yield Row(f"{name}: masked / unmasked", milliseconds, "ms", "no mask", overhead, 1.02, "lower")
        stock, stock_compiling = _step(name, masked=True, plain=True)
        peer = "stock lax convolutions"
        speedup = interleaved({"stock": stock}, 1)["stock"] / times["masked"]
        yield Row(f"{name}: train step", milliseconds, "ms", peer, speedup, 5.0 if name == "dcgan" else None)
        yield Row(f"{name}: compilation", compiling, "s", peer, compiling / stock_compiling)
        if name == "unet":
            yield Row("unet: samples", 1 / _seconds_a_sample(), "a second", "DDIM, 50 steps")
        del call, unmasked, stock
        gc.collect()


if __name__ == "__main__":
    from scripts.bench import line

    for row in run(tuple(sys.argv[1:]) or tuple(OBJECTIVES)):
        print(line(row), flush=True)
