"""What diffusion and flow matching have in common: a network that sees noised data and the time, and its regression.

Time is 0 at the data and 1 at the noise, in both objectives. So one network has one meaning of its inputs in both, and
its tickets can be taken from one objective to the other. Its params are the component `denoiser`.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from lotto_jax.objectives import averaging, single
from lotto_jax.objectives.ranges import as_signed, unit_from_signed
from lotto_jax.objectives.state import Batch, Better, Metrics, Objective

COMPONENT = "denoiser"
EVALUATION_SEED = 2020  # of the noise of `evaluate`, the same for every network and batch
LEVELS = 4  # equal parts of the time, of each of which `evaluate` has a loss
Data = Float[Array, "batch height width channels"]
Time = Float[Array, "batch"]
Denoise = Callable[[Data, Time], Data]  # the network's output for noised data at a time

BETTER: dict[str, Better] = {
    "loss": "lower",
    **{f"loss_level_{level}": "lower" for level in range(1, LEVELS + 1)},
    "bits_per_dim": "lower",
}


class Process(NamedTuple):
    """How data become noise, what the network is asked there, and how its answers become samples and likelihoods.

    Attributes:
      time: uniform numbers in [0, 1) to the times that there are.
      noised: `(data, noise, time) -> noised data`.
      target: `(data, noise, time) -> what the network regresses on`.
      sample: `(denoise, noise, key, clip) -> data`; `clip` says whether data lie in [-1, 1].
      nats: `(denoise, data, key, clip, quantized) -> negative log likelihood of each example, or a bound`, in nats;
        `quantized` says whether data are bytes, of which it is the probability, else it is a density. None: unknown.
    """

    time: Callable[[Time], Time]
    noised: Callable[[Data, Data, Time], Data]
    target: Callable[[Data, Data, Time], Data]
    sample: Callable[[Denoise, Data, Key[Array, ""], bool], Data]
    nats: Callable[[Denoise, Data, Key[Array, ""], bool, bool], Float[Array, "batch"]] | None


def broadcast(per_example: Float[Array, "batch"]) -> Float[Array, "batch 1 1 1"]:
    """Numbers of examples as factors of their data."""
    return per_example[:, None, None, None]


def is_quantized(batch: Batch) -> bool:
    """Whether the data are bytes; else they are vectors of floats, as they are."""
    return batch.image.dtype == jnp.uint8


def make(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    process: Process,
    ema: float,
) -> Objective:
    """The objective of a denoising network: mean squared error at uniform times; evaluated with averaged params.

    Bytes are scaled to [-1, 1]; float data are taken as they are. Metric of a step: `loss`. Metrics of `evaluate`, all
    by the average of the params: `loss`, a stratified estimate with `LEVELS` times an example; `loss_level_1` (the
    quarter next to the data) to `loss_level_4` (next to the noise), its parts; and `bits_per_dim`, where the process
    has it: a negative log likelihood, or a bound of it, in bits a number; of bytes, or else of a density. Every ticket
    of every seed is evaluated with the same noise at the same times.

    Args:
      model: called as `model(x, time, train)` with x float32 [batch, height, width, channels] and time float32 [batch]
        in [0, 1]; returns an array like x. It may draw from the rng stream "dropout" in training.
      optimizer: updates all params.
      image_shape: (height, width, channels).
      process: a diffusion or a flow.
      ema: decay of the average of params, see `averaging.decay_at`.
    """

    def initialize(key: Key[Array, ""]) -> tuple[PyTree, Key[Array, ""]]:
        variables = model.init(key, jnp.zeros((1, *image_shape)), jnp.zeros(1), train=False)
        return {collection: {COMPONENT: value} for collection, value in variables.items()}, key

    def variables_of(params: PyTree, model_state: PyTree) -> PyTree:
        own = {"params": params, **model_state}
        return {collection: components[COMPONENT] for collection, components in own.items()}

    def denoise_by(params: PyTree, model_state: PyTree) -> Denoise:
        def denoise(x: Data, time: Time) -> Data:
            output = model.apply(variables_of(params, model_state), x, time, train=False)
            assert isinstance(output, jax.Array)  # nothing is mutable
            return output

        return denoise

    def training_loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Array, tuple[PyTree, Metrics]]:
        data, (time_key, noise_key, dropout_key) = as_signed(batch.image), jax.random.split(key, 3)
        time = process.time(jax.random.uniform(time_key, data.shape[:1]))
        noise = jax.random.normal(noise_key, data.shape)
        output, new_state = model.apply(
            variables_of(params, model_state),
            process.noised(data, noise, time),
            time,
            train=True,
            mutable=list(model_state),
            rngs={"dropout": dropout_key},
        )
        value = jnp.mean(jnp.square(output - process.target(data, noise, time)))
        return value, ({name: {COMPONENT: new} for name, new in new_state.items()}, {"loss": value})

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Metrics:
        del key  # seeds are replicates: noise of their own would be mistaken for a difference between networks
        denoise, data = denoise_by(params, model_state), as_signed(batch.image)
        loss_key, likelihood_key = jax.random.split(jax.random.key(EVALUATION_SEED))

        def at_level(level: Array) -> Array:
            time_key, noise_key = jax.random.split(jax.random.fold_in(loss_key, level))
            time = process.time((level + jax.random.uniform(time_key, data.shape[:1])) / LEVELS)
            noise = jax.random.normal(noise_key, data.shape)
            output = denoise(process.noised(data, noise, time), time)
            return jnp.mean(jnp.square(output - process.target(data, noise, time)))

        losses = jax.lax.map(at_level, jnp.arange(LEVELS))
        found = {"loss": jnp.mean(losses)} | {f"loss_level_{i + 1}": losses[i] for i in range(LEVELS)}
        if process.nats is not None:
            quantized = is_quantized(batch)
            nats = process.nats(denoise, data, likelihood_key, quantized, quantized)
            found["bits_per_dim"] = jnp.mean(nats) / (data[0].size * jnp.log(2.0))
        return found

    def sample(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Array:
        noise_key, own_key = jax.random.split(key)
        noise, quantized = jax.random.normal(noise_key, batch.image.shape), is_quantized(batch)
        data = process.sample(denoise_by(params, model_state), noise, own_key, quantized)
        return jnp.clip(unit_from_signed(data), 0.0, 1.0) if quantized else data

    better = {name: way for name, way in BETTER.items() if name != "bits_per_dim" or process.nats is not None}
    made = single.make((COMPONENT,), initialize, training_loss, evaluate, optimizer, model, better, sample=sample)
    return averaging.averaged(made, ema)
