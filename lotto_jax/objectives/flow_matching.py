"""Flow matching: a network that learns the velocity of straight paths from data to noise.

x_s = (1 - s) data + (m + (1 - m) s) noise, with s from 0 at the data to 1 at the noise. With m = 0 that is rectified
flow (Liu et al. 2023); a small m is the conditional optimal-transport path (Lipman et al. 2023, equation 22, whose time
runs the other way). The network regresses on the velocity dx/ds = (1 - m) noise - data.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.scipy import stats
from jaxtyping import Array, Float, Key

from lotto_jax.objectives import denoising
from lotto_jax.objectives.denoising import Data, Denoise, Process, Time, broadcast
from lotto_jax.objectives.state import Objective

GRAY = 1 / 127.5  # between two bytes in [-1, 1]


class Flow(NamedTuple):
    """Straight paths; `smallest` is m above, the noise that is left at the data."""

    smallest: float = 0.0

    def noised(self, data: Data, noise: Data, time: Time) -> Data:
        """x_s."""
        s = broadcast(time)
        return (1.0 - s) * data + (self.smallest + (1.0 - self.smallest) * s) * noise

    def target(self, data: Data, noise: Data, time: Time) -> Data:
        """The velocity."""
        return (1.0 - self.smallest) * noise - data


def integrate(
    slope: Callable[[Any, Float[Array, ""]], Any], start: Any, first: float, last: float, steps: int, heun: bool
) -> Any:
    """The solution at `last` of dx/ds = slope(x, s) that is `start` at `first`, in equal steps.

    Euler's method (order 1, one evaluation a step) or Heun's (order 2, two evaluations). x may be any pytree.
    """
    width = (last - first) / steps
    move = lambda x, *slopes: jax.tree.map(lambda a, *d: a + width * sum(d) / len(d), x, *slopes)  # noqa: E731

    def one_step(x: Any, number: Array) -> tuple[Any, None]:
        s = first + width * number
        here = slope(x, s)
        guess = move(x, here)
        return (move(x, here, slope(guess, s + width)) if heun else guess), None

    return lax.scan(one_step, start, jnp.arange(steps, dtype=jnp.float32))[0]


def nats(denoise: Denoise, data: Data, key: Key[Array, ""], quantized: bool, steps: int) -> Float[Array, "batch"]:
    """Negative log density of data under the flow, by the change of variables along it (Chen et al. 2018).

    The divergence is estimated with one random vector of signs an example (Grathwohl et al. 2019), the path by Heun's
    method. Bytes get uniform noise of their width first, and the result is a bound of their log probability.
    """
    noise_key, signs_key = jax.random.split(key)
    if quantized:
        data = data + GRAY * (jax.random.uniform(noise_key, data.shape) - 0.5)
    signs = jax.random.rademacher(signs_key, data.shape, data.dtype)
    total = lambda x: jnp.sum(x, axis=(1, 2, 3))  # noqa: E731

    def slope(state: tuple[Data, Array], s: Array) -> tuple[Data, Array]:
        at = lambda x: denoise(x, jnp.broadcast_to(s, x.shape[:1]))  # noqa: E731
        velocity, pullback = jax.vjp(at, state[0])
        return velocity, total(pullback(signs)[0] * signs)

    start = (data, jnp.zeros(data.shape[0]))
    end, divergence = integrate(slope, start, 0.0, 1.0, steps, heun=True)
    log_density = total(stats.norm.logpdf(end)) + divergence
    return -log_density - (data[0].size * jnp.log(GRAY) if quantized else 0.0)


def make(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    smallest_noise: float = 0.0,
    sampler: Literal["euler", "heun"] = "euler",
    sample_steps: int = 50,
    likelihood_steps: int = 0,
    ema: float = 0.9999,
) -> Objective:
    """The objective of a flow, with the metrics of `denoising.make`.

    Args:
      model: see `denoising.make`.
      optimizer: updates all params.
      image_shape: (height, width, channels).
      smallest_noise: that is left at the data: 0 for rectified flow; conditional optimal-transport paths have a small
        one, as 1e-4.
      sampler: "euler", or "heun", which passes through the network twice a step.
      sample_steps: steps from noise to a sample.
      likelihood_steps: steps of `bits_per_dim`, each of which costs about six passes through the network; 0 leaves
        that metric out.
      ema: decay of the average of params.

    Raises:
      ValueError: for an unknown sampler, or a number that makes no sense.
    """
    if sampler not in ("euler", "heun"):
        raise ValueError(f"sampler is {sampler!r}; a flow takes euler or heun.")
    if sample_steps < 1:
        raise ValueError(f"sample_steps is {sample_steps}; a flow takes 1 or more.")
    if likelihood_steps < 0:
        raise ValueError(f"likelihood_steps is {likelihood_steps}; it takes 0, for no likelihood, or more.")
    if not 0 <= smallest_noise < 1:
        raise ValueError(f"smallest_noise is {smallest_noise}; it must lie in [0, 1).")
    own = Flow(smallest_noise)

    def sample(denoise: Denoise, noise: Data, key: Key[Array, ""], clip: bool) -> Data:
        del key, clip  # nothing is drawn on the way, and nothing is known to lie in [-1, 1] before its end
        slope = lambda x, s: denoise(x, jnp.broadcast_to(s, x.shape[:1]))  # noqa: E731
        return integrate(slope, noise, 1.0, 0.0, sample_steps, sampler == "heun")

    def likelihood(denoise: Denoise, data: Data, key: Key[Array, ""], clip: bool, quantized: bool) -> Array:
        del clip
        return nats(denoise, data, key, quantized, likelihood_steps)

    process = Process(lambda time: time, own.noised, own.target, sample, likelihood if likelihood_steps else None)
    return denoising.make(model, optimizer, image_shape, process, ema)
