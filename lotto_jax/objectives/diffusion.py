"""Denoising diffusion (Ho et al. 2020): a network that tells noise from data, trained by the simple loss.

With a_t the product of all 1 - beta up to step t, x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise. Samplers are ancestral
(DDPM) or deterministic (DDIM; Song et al. 2021), over all steps or evenly chosen ones. The likelihood is the
variational bound of Ho et al., equation 5, with the variances beta (that of the posterior for the last step, as in
their code's "fixedlarge"); the ancestral sampler has those of the posterior.
"""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.scipy import stats
from jaxtyping import Array, Float, Int, Key

from lotto_jax.objectives import denoising
from lotto_jax.objectives.denoising import LEVELS, Data, Denoise, Process, Time, broadcast
from lotto_jax.objectives.state import Objective

Prediction = Literal["epsilon", "v"]
GRAY = 1 / 127.5  # between two bytes in [-1, 1]


def betas_linear(steps: int) -> Float[np.ndarray, "steps"]:
    """From 1e-4 to 0.02 (Ho et al. 2020), for 1,000 steps; of other numbers of steps, as much noise in the end."""
    scale = 1000 / steps
    return np.minimum(np.linspace(1e-4 * scale, 0.02 * scale, steps), 0.999)


def betas_cosine(steps: int) -> Float[np.ndarray, "steps"]:
    """Those whose products follow a squared cosine (Nichol and Dhariwal 2021, equation 17), at most 0.999."""
    left = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - left[1:] / left[:-1], 0.999)


SCHEDULES = {"linear": betas_linear, "cosine": betas_cosine}


class Diffusion(NamedTuple):
    """A schedule, and what the network predicts.

    Attributes:
      prediction: "epsilon", the noise; or "v" = sqrt(a) noise - sqrt(1 - a) x_0 (Salimans and Ho 2022).
      kept: a_t, float64 [steps].
    """

    prediction: Prediction
    kept: np.ndarray

    @property
    def steps(self) -> int:
        """Steps from data to noise."""
        return len(self.kept)

    def number(self, time: Time) -> Int[Array, "batch"]:
        """The steps at times in [0, 1)."""
        return jnp.clip(jnp.round(time * self.steps).astype(jnp.int32), 0, self.steps - 1)

    def time(self, uniform: Time) -> Time:
        """The times of uniformly drawn steps."""
        return jnp.floor(uniform * self.steps) / self.steps

    def scales(self, step: Int[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """sqrt(a), sqrt(1 - a) at steps; at step -1, where data are themselves, 1 and 0."""
        signal, noise = (jnp.asarray(np.sqrt([x0, *x]), jnp.float32) for x0, x in ((1, self.kept), (0, 1 - self.kept)))
        return signal[step + 1], noise[step + 1]

    def noised(self, data: Data, noise: Data, time: Time) -> Data:
        """x_t."""
        signal, amount = map(broadcast, self.scales(self.number(time)))
        return signal * data + amount * noise

    def target(self, data: Data, noise: Data, time: Time) -> Data:
        """What the network regresses on."""
        if self.prediction == "epsilon":
            return noise
        signal, amount = map(broadcast, self.scales(self.number(time)))
        return signal * noise - amount * data

    def data_of(self, denoise: Denoise, x: Data, step: Int[Array, "batch"], clip: bool) -> Data:
        """The network's estimate of x_0 from x_t."""
        signal, amount = map(broadcast, self.scales(step))
        output = denoise(x, step.astype(jnp.float32) / self.steps)
        data = (x - amount * output) / signal if self.prediction == "epsilon" else signal * x - amount * output
        return jnp.clip(data, -1.0, 1.0) if clip else data

    def sample(
        self, denoise: Denoise, noise: Data, key: Key[Array, ""], clip: bool, count: int, ancestral: bool
    ) -> Data:
        """Data from noise in `count` evenly chosen steps from the last one to the first.

        Song et al. 2021, equation 12: with eta 1 where `ancestral`, which over all steps is DDPM, else with eta 0.
        """
        chosen = np.unique(np.round(np.linspace(self.steps - 1, 0, count)).astype(np.int32))[::-1].copy()
        following = np.append(chosen[1:], np.int32(-1))

        def one_step(x: Data, at: tuple[Array, Array, Array]) -> tuple[Data, None]:
            step, after, key = at
            data = self.data_of(denoise, x, jnp.broadcast_to(step, x.shape[:1]), clip)
            (signal, amount), (signal_after, amount_after) = self.scales(step), self.scales(after)
            own = (x - signal * data) / amount  # the noise that goes with the estimate
            if not ancestral:
                return signal_after * data + amount_after * own, None
            spread = amount_after / amount * jnp.sqrt(jnp.maximum(1.0 - jnp.square(signal / signal_after), 0.0))
            rest = jnp.sqrt(jnp.maximum(jnp.square(amount_after) - jnp.square(spread), 0.0))
            fresh = jax.random.normal(key, x.shape)
            return signal_after * data + rest * own + spread * fresh, None

        keys = jax.random.split(key, len(chosen))
        return lax.scan(one_step, noise, (jnp.asarray(chosen), jnp.asarray(following), keys))[0]

    def nats(
        self, denoise: Denoise, data: Data, key: Key[Array, ""], clip: bool, quantized: bool
    ) -> Float[Array, "batch"]:
        """An unbiased estimate of the variational bound: its first and last terms, and `LEVELS` of those between."""
        total = lambda x: jnp.sum(x, axis=(1, 2, 3))  # noqa: E731
        kept, before = self.kept, np.append(1.0, self.kept[:-1])
        beta = 1 - kept / before
        variance = beta * (1 - before) / (1 - kept)  # of the posterior; 0 at step 0
        share = variance[1:] / beta[1:]
        fixed, weight = (  # KL divergence of two normal distributions: of their variances, and of their means
            jnp.asarray(np.append(0.0, x), jnp.float32)
            for x in (0.5 * (share - 1 - np.log(share)), (before * beta / (1 - kept) ** 2)[1:] / 2)
        )

        def between(level: Array) -> Array:
            time_key, noise_key = jax.random.split(jax.random.fold_in(key, level))
            time = self.time((level + jax.random.uniform(time_key, data.shape[:1])) / LEVELS)
            step, noise = self.number(time), jax.random.normal(noise_key, data.shape)
            found = self.data_of(denoise, self.noised(data, noise, time), step, clip)
            return self.steps * (weight[step] * total(jnp.square(data - found)) + data[0].size * fixed[step])

        middle = jnp.mean(lax.map(between, jnp.arange(LEVELS)), axis=0)
        prior = 0.5 * total(kept[-1] * jnp.square(data) - kept[-1] - np.log(1 - kept[-1]))
        first = jnp.zeros(data.shape[0])
        noise = jax.random.normal(jax.random.fold_in(key, LEVELS), data.shape)
        mean = self.data_of(denoise, self.noised(data, noise, first), first.astype(jnp.int32), clip)
        spread = np.float32(np.sqrt(variance[1]))
        decoder = _log_byte(data, mean, spread) if quantized else stats.norm.logpdf(data, mean, spread)
        return prior + middle - total(decoder)


def _log_byte(data: Data, mean: Data, spread: np.float32) -> Data:
    """Log probability of bytes, scaled to [-1, 1], by a normal distribution (Ho et al. 2020, equation 13)."""
    upper, lower = ((data - mean + side * GRAY / 2) / spread for side in (1, -1))
    # Of two tails near 1 the difference of the survival functions is the one that floats can hold.
    inside = jnp.where(
        lower > 0, stats.norm.sf(lower) - stats.norm.sf(upper), stats.norm.cdf(upper) - stats.norm.cdf(lower)
    )
    last = jnp.where(data > 1 - GRAY / 2, stats.norm.logsf(lower), jnp.log(jnp.maximum(inside, 1e-12)))
    return jnp.where(data < -1 + GRAY / 2, stats.norm.logcdf(upper), last)


def make(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    prediction: Prediction = "epsilon",
    schedule: Literal["linear", "cosine"] = "linear",
    noise_steps: int = 1000,
    sampler: Literal["ddpm", "ddim"] = "ddim",
    sample_steps: int = 50,
    ema: float = 0.9999,
) -> Objective:
    """The objective of a diffusion model, with the metrics of `denoising.make`; `bits_per_dim` is a variational bound.

    Args:
      model: see `denoising.make`; its time is the step, counted from 0, divided by `noise_steps`.
      optimizer: updates all params.
      image_shape: (height, width, channels).
      prediction: of the network, "epsilon" or "v"; the loss is its unweighted mean squared error.
      schedule: of the noise, "linear" or "cosine".
      noise_steps: T, steps from data to noise.
      sampler: "ddpm", ancestral, or "ddim", deterministic.
      sample_steps: passes through the network for a sample, evenly chosen of the `noise_steps`.
      ema: decay of the average of params.

    Raises:
      ValueError: for an unknown prediction, schedule or sampler, or a number of steps that makes no sense.
    """
    for field, value, choices in (
        ("prediction", prediction, ("epsilon", "v")),
        ("schedule", schedule, tuple(SCHEDULES)),
        ("sampler", sampler, ("ddpm", "ddim")),
    ):
        if value not in choices:
            raise ValueError(f"{field} is {value!r}; a diffusion takes {' or '.join(choices)}.")
    if noise_steps < 2:
        raise ValueError(f"noise_steps is {noise_steps}; a diffusion takes 2 or more.")
    if not 1 <= sample_steps <= noise_steps:
        raise ValueError(f"sample_steps is {sample_steps}; it must be from 1 to noise_steps, {noise_steps}.")
    kept = np.cumprod(1 - SCHEDULES[schedule](noise_steps))
    own = Diffusion(prediction, kept)

    def sample(denoise: Denoise, noise: Data, key: Key[Array, ""], clip: bool) -> Data:
        return own.sample(denoise, noise, key, clip, sample_steps, sampler == "ddpm")

    process = Process(own.time, own.noised, own.target, sample, own.nats)
    return denoising.make(model, optimizer, image_shape, process, ema)
