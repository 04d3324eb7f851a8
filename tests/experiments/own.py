"""What users write: an experiment, a pruning rule, and an objective, each in a few lines, named by reference."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lotto_jax import pruning
from lotto_jax.experiments import dense
from lotto_jax.experiments.protocol import Experiment, Phase, Start
from lotto_jax.metrics import Metric
from lotto_jax.objectives.state import Objective, TrainingLoss, TrainState, masked_update
from lotto_jax.reports import sections


def longer(run):
    """The dense networks, and tickets with a tenth of them gone at random, from the state half way."""
    half = run.steps // 2

    def start():
        mask = jax.vmap(pruning.random_scores)(run.fresh.key, run.fresh.params)
        mask = jax.vmap(lambda s, m: pruning.global_prune(s, m, 0.1))(mask, run.ones("both"))
        body = run.stack("both", 1, "lucky", run.snapshot(half), mask)
        return Start(run.objective, body=body, join=half)

    return [
        dense.phase(run, [half]),
        Phase("lucky tickets", start, len(run.seeds), len(run.seeds) * (run.steps - half)),
    ]


EXPERIMENT = Experiment(lambda config, objective, feed: None, longer, (sections.metrics,))


class Deep(nn.Module):
    """An autoencoder with fields of all kinds, some without a default."""

    widths: tuple[int, ...] = (32, 16)
    nonlinearity: str | None = None
    rate: float = 0.0

    @nn.compact
    def __call__(self, image, train):
        x = image.reshape(image.shape[0], -1)
        for i, width in enumerate(self.widths):
            x = getattr(nn, self.nonlinearity or "relu")(nn.Dense(width, name=f"encoder_{i}")(x))
        return nn.Dense(image[0].size, name="decoder")(x).reshape(image.shape)


class Coder(nn.Module):
    """A dense layer, and a batch norm if wanted."""

    width: int
    norm: bool = False

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(self.width, name="dense")(x)
        return nn.BatchNorm(not train, name="norm")(x) if self.norm else x


class Named(nn.Module):
    """An autoencoder whose second component, which has batch statistics, has a name of choice."""

    last: str = "decoder"
    latent: int = 8

    @nn.compact
    def __call__(self, image, train):
        z = nn.relu(Coder(self.latent, name="encoder")(image.reshape(image.shape[0], -1), train))
        return Coder(image[0].size, True, name=self.last)(z, train).reshape(image.shape)


class Grouped(nn.Module):
    """A denoising network with a group norm between two dense layers; it takes times, as diffusions and flows do."""

    width: int = 12

    @nn.compact
    def __call__(self, x, time, train):
        y = nn.Dense(self.width, name="in")(x) + time[:, None, None, None]
        y = nn.swish(nn.GroupNorm(None, group_size=3, name="norm")(y))
        return nn.Dense(x.shape[-1], name="out")(y)


def no_objective(image_shape):
    """What a function must not return."""
    return {"shape": image_shape}


LOSS = Metric("reconstruction_loss", ("originals",), lambda given: 0.0, better="lower")


def tenth_of_the_encoder(params, mask, fraction):
    """A rule that spares the decoder."""
    found = pruning.global_prune(pruning.magnitude(params["encoder"]), mask["encoder"], fraction)
    return {**mask, "encoder": found}


def scale(image_shape, optimizer, start=2.0):
    """An objective of two numbers that learn to be the mean of an image; it says nothing of the directions of one
    metric.
    """

    def init(key):
        params = {"one": {"w": jnp.full((1, 2), start)}}
        return TrainState(params, {}, optimizer.init(params), jnp.int32(0), key)

    def loss(params, model_state, batch, key):
        return jnp.mean((jnp.sum(params["one"]["w"]) - jnp.mean(batch.image / 255.0, (1, 2, 3))) ** 2)

    def step(state, mask, batch, key):
        value, grads = jax.value_and_grad(loss)(state.params, {}, batch, key)
        params, opt_state = masked_update(optimizer, grads, state.opt_state, state.params, mask)
        return TrainState(params, {}, opt_state, state.step + 1, state.key), {"loss": value}

    evaluate = lambda params, model_state, batch, key: {"distance": loss(params, model_state, batch, key)}  # noqa: E731
    return Objective(("one",), init, step, evaluate, (TrainingLoss(("one",), loss),))


def scale_with_direction(image_shape, optimizer):
    """The same, whole."""
    return scale(image_shape, optimizer)._replace(better=(("distance", "lower"),))
