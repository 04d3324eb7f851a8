"""Adversarial objectives: the non-saturating GAN (Goodfellow et al. 2014), hinge (Miyato et al. 2018), and
Wasserstein with weight clipping (Arjovsky et al. 2017) or gradient penalty (Gulrajani et al. 2017).

Batch statistics. In a discriminator step, real and fake images pass through separately, each normalized by
its own batch; the running statistics take in the real batch, then the fake one. The generator step's pass
through the discriminator normalizes by the fake batch and stores nothing. The generator normalizes by its own
batch in both, and its running statistics take in one batch a train step. Nothing is stored for the gradient
penalty.

Spectral norm. Both passes of a discriminator step start from the stored vectors, and so normalize alike: one
power iteration for each discriminator step.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from lotto_jax.objectives import loss_scale
from lotto_jax.objectives.ranges import to_signed, unit_from_signed
from lotto_jax.objectives.state import Batch, Better, Metrics, Objective, TrainingLoss, TrainState, masked_update
from lotto_jax.pruning import masks

Logits = Float[Array, "batch"]
Image = Float[Array, "batch height width channels"]
BETTER: dict[str, Better] = {"generator_loss": "neither", "discriminator_loss": "neither", "collapsed": "neither"}
COMPONENTS = ("generator", "discriminator")
GRAY_LEVEL = 2 / 255  # of images in [-1, 1]
NEVER = 2**31 - 1


class Pair(NamedTuple):
    """What discriminator and generator minimize, as functions of the discriminator's logits."""

    discriminator: Callable[[Logits, Logits], Float[Array, ""]]  # of real and fake images
    generator: Callable[[Logits], Float[Array, ""]]


LOSSES = {
    "bce": Pair(
        lambda real, fake: jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake)),
        lambda fake: jnp.mean(jax.nn.softplus(-fake)),
    ),
    "hinge": Pair(
        lambda real, fake: jnp.mean(jax.nn.relu(1.0 - real)) + jnp.mean(jax.nn.relu(1.0 + fake)),
        lambda fake: -jnp.mean(fake),
    ),
    "wasserstein": Pair(
        lambda real, fake: jnp.mean(fake) - jnp.mean(real),
        lambda fake: -jnp.mean(fake),
    ),
}


def is_collapsed(image: Float[Array, "batch height width channels"]) -> Bool[Array, ""]:
    """Whether samples in [-1, 1] are not finite, or the same up to a gray level (mean deviation over the batch)."""
    varied = jnp.mean(jnp.std(image, axis=0)) > GRAY_LEVEL
    return jnp.logical_not(varied)  # also where the deviation is NaN


def gradient_penalty(
    critic: Callable[[Array], Logits], real: Array, fake: Array, key: Key[Array, ""]
) -> Float[Array, ""]:
    """Mean of `(norm of the critic's gradient - 1)^2` at random points between real and fake images.

    Gulrajani et al. 2017, equation 3, without its weight. The critic must treat the images of a batch
    separately.
    """
    share = jax.random.uniform(key, (real.shape[0], 1, 1, 1))
    gradient = jax.grad(lambda image: jnp.sum(critic(image)))(share * real + (1.0 - share) * fake)
    norm = jnp.sqrt(jnp.sum(jnp.square(gradient), axis=(1, 2, 3)) + 1e-12)  # differentiable at 0
    return jnp.mean(jnp.square(norm - 1.0))


class _Player(NamedTuple):
    """What a train state has of one component."""

    params: PyTree
    model_state: PyTree  # {collection: variables}
    opt_state: PyTree


class _Gan(NamedTuple):
    """Two networks and how they are trained: the arguments of `make`, with optimizers that skip what is not finite."""

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: optax.GradientTransformation
    discriminator_optimizer: optax.GradientTransformation
    losses: Pair
    image_shape: tuple[int, int, int]
    latent: int
    critic_steps: int
    weight_clip: float | None
    gradient_penalty_weight: float

    def init(self, key: Key[Array, ""]) -> TrainState:
        """The train state at step 0."""
        generator_key, discriminator_key, run_key = jax.random.split(key, 3)
        made = {
            "generator": self.generator.init(generator_key, jnp.zeros((1, self.latent)), train=False),
            "discriminator": self.discriminator.init(discriminator_key, jnp.zeros((1, *self.image_shape)), train=False),
        }
        optimizers = {"generator": self.generator_optimizer, "discriminator": self.discriminator_optimizer}
        players = {}
        for name, variables in made.items():
            collections = {collection: value for collection, value in variables.items() if collection != "params"}
            params = variables["params"]
            players[name] = _Player(params, collections, optimizers[name].init(params))
        return _joined(players, jnp.zeros((), jnp.int32), run_key)

    def fakes(
        self, params: PyTree, state: PyTree, count: int, key: Key[Array, ""], train: bool
    ) -> tuple[Image, PyTree]:
        """Images in [-1, 1] from `count` latent vectors, which the key determines, and the generator's new state."""
        z = jax.random.normal(key, (count, self.latent))
        return self.generator.apply({"params": params, **state}, z, train=train, mutable=list(state))

    def judge(self, params: PyTree, state: PyTree, image: Image, train: bool) -> tuple[Logits, PyTree]:
        """Logits of images in [-1, 1], and the discriminator's new state."""
        return self.discriminator.apply({"params": params, **state}, image, train=train, mutable=list(state))

    def discriminator_loss(
        self, params: PyTree, state: PyTree, real: Image, fake: Image, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], PyTree]:
        """What the discriminator minimizes, and its state after both passes."""
        real_logits, after_real = self.judge(params, state, real, True)
        between = {**state, **{k: v for k, v in after_real.items() if k == "batch_stats"}}
        fake_logits, after_fake = self.judge(params, between, fake, True)
        total = self.losses.discriminator(real_logits, fake_logits)
        if self.gradient_penalty_weight:
            penalty = gradient_penalty(lambda x: self.judge(params, state, x, True)[0], real, fake, key)
            total += self.gradient_penalty_weight * penalty
        return total, after_fake

    def generator_loss(self, params: PyTree, state: PyTree, fake: Image) -> tuple[Float[Array, ""], PyTree]:
        """What the generator minimizes, through the discriminator's params and state; and the state after it."""
        logits, after = self.judge(params, state, fake, True)
        return self.losses.generator(logits), after

    def update_discriminator(
        self, player: _Player, mask: masks.Mask, real: Image, fake: Image, key: Key[Array, ""]
    ) -> tuple[_Player, Float[Array, ""]]:
        """The discriminator after one update, and the loss before it."""
        loss_fn = loss_scale.value_and_grad(self.discriminator_loss, player.opt_state)
        (value, model_state), grads = loss_fn(player.params, player.model_state, real, fake, key)
        params, opt_state = masked_update(self.discriminator_optimizer, grads, player.opt_state, player.params, mask)
        if self.weight_clip is not None:
            bound = self.weight_clip
            params = jax.tree.map(lambda p: jnp.clip(p, -bound, bound), params)
        return _Player(params, model_state, opt_state), value

    def update_generator(
        self,
        player: _Player,
        mask: masks.Mask,
        critic: _Player,
        fake: Image,
        pullback: Callable[[Image], tuple[PyTree]],
    ) -> tuple[_Player, Float[Array, ""]]:
        """The generator after one update, and the loss before it; `pullback` is that of its params to `fake`."""
        loss_fn = loss_scale.value_and_grad(self.generator_loss, player.opt_state, argnums=2)
        (value, _), image_gradient = loss_fn(critic.params, critic.model_state, fake)
        grads = pullback(image_gradient)[0]
        params, opt_state = masked_update(self.generator_optimizer, grads, player.opt_state, player.params, mask)
        return _Player(params, player.model_state, opt_state), value

    def step(
        self, state: TrainState, mask: masks.Mask, batch: Batch, key: Key[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        """`critic_steps` updates of the discriminator, then one of the generator."""
        real = to_signed(batch.image).reshape(self.critic_steps, self.part_size(batch), *self.image_shape)
        keys = jax.random.split(key, (self.critic_steps, 2))
        generator, critic = (_player(state, name) for name in COMPONENTS)

        def fakes(params: PyTree, key: Key[Array, ""]) -> tuple[Image, PyTree]:
            return self.fakes(params, generator.model_state, real.shape[1], key, True)

        def critic_step(critic: _Player, part: tuple[Image, Key[Array, "2"]]) -> tuple[_Player, Float[Array, ""]]:
            real, keys = part
            fake = fakes(generator.params, keys[0])[0]
            return self.update_discriminator(critic, mask["discriminator"], real, fake, keys[1])

        if self.critic_steps > 1:
            critic, _ = lax.scan(critic_step, critic, (real[:-1], keys[:-1]))
        # The last fakes serve both updates, so their pass through the generator is made once.
        fake, pullback, generator_state = jax.vjp(
            lambda params: fakes(params, keys[-1, 0]), generator.params, has_aux=True
        )
        critic, critic_value = self.update_discriminator(critic, mask["discriminator"], real[-1], fake, keys[-1, 1])
        generator, value = self.update_generator(
            generator._replace(model_state=generator_state), mask["generator"], critic, fake, pullback
        )
        players = {"generator": generator, "discriminator": critic}
        metrics = {"generator_loss": value, "discriminator_loss": critic_value}
        return _joined(players, state.step + 1, state.key), metrics

    def part_size(self, batch: Batch) -> int:
        """Images of a batch for each critic step."""
        total = batch.image.shape[0]
        if total % self.critic_steps:
            raise ValueError(
                f"The batch has {total} images, which {self.critic_steps} critic steps can't share equally; "
                f"make the batch size a multiple of critic_steps."
            )
        return total // self.critic_steps

    def initial_loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""], component: str
    ) -> Float[Array, ""]:
        """What a component minimizes, over the whole batch at once."""
        states = {name: _of_component(model_state, name) for name in params}
        fake_key, penalty_key = jax.random.split(key)
        fake = self.fakes(params["generator"], states["generator"], batch.image.shape[0], fake_key, True)[0]
        judged = params["discriminator"], states["discriminator"]
        if component == "generator":
            return self.generator_loss(*judged, fake)[0]
        return self.discriminator_loss(*judged, to_signed(batch.image), fake, penalty_key)[0]

    def fixed_fakes(self, params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Image:
        """As many fakes as the batch has images, by stored batch statistics."""
        state = _of_component(model_state, "generator")
        return self.fakes(params["generator"], state, batch.image.shape[0], key, False)[0]

    def evaluate(self, params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Metrics:
        """Both losses without a penalty, and whether the generator has collapsed."""
        fake = self.fixed_fakes(params, model_state, batch, key)
        state = _of_component(model_state, "discriminator")
        real_logits, fake_logits = (
            self.judge(params["discriminator"], state, image, False)[0] for image in (to_signed(batch.image), fake)
        )
        found = {
            "generator_loss": self.losses.generator(fake_logits),
            "discriminator_loss": self.losses.discriminator(real_logits, fake_logits),
        }
        broken = ~jnp.isfinite(jnp.stack(list(found.values()))).all()
        return found | {"collapsed": (is_collapsed(fake) | broken).astype(jnp.float32)}

    def sample(self, params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Image:
        """`fixed_fakes` in [0, 1]."""
        return unit_from_signed(self.fixed_fakes(params, model_state, batch, key))


def make(
    generator: nn.Module,
    discriminator: nn.Module,
    generator_optimizer: optax.GradientTransformation,
    discriminator_optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    latent: int = 128,
    loss: Literal["bce", "hinge", "wasserstein"] = "bce",
    critic_steps: int = 1,
    weight_clip: float | None = None,
    gradient_penalty_weight: float = 0.0,
) -> Objective:
    """The objective of a GAN with components `generator` and `discriminator`.

    A train step is `critic_steps` updates of the discriminator, each on its own equal part of the batch and
    on as many new fakes, then one of the generator, through the new discriminator, on the last fakes. Images
    are scaled to [-1, 1]. Metrics of a step (of its last part) and of `evaluate`: `generator_loss`,
    `discriminator_loss`. A GAN can break down without the run being at fault: an update whose gradients are
    not finite is skipped, and `evaluate` has `collapsed`, which is 1 where a loss or the samples of a batch
    are not finite, or the samples differ by less than a gray level.

    Args:
      generator: `(z, train) -> images in [-1, 1]`.
      discriminator: `(images, train) -> logits`.
      generator_optimizer: updates the generator.
      discriminator_optimizer: updates the discriminator, `critic_steps` times a step.
      image_shape: (height, width, channels).
      latent: size of the standard normal vector z.
      loss: a key of `LOSSES`.
      critic_steps: discriminator updates a step; must divide the batch size.
      weight_clip: bound on the absolute value of every discriminator param after each update; None does not
        clip.
      gradient_penalty_weight: of `gradient_penalty` in the discriminator's loss; 0 leaves it out.

    Raises:
      ValueError: for an unknown loss, less than one critic step, or (from `step`) a batch that they don't
        divide.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; an adversarial objective has {', '.join(LOSSES)}.")
    if critic_steps < 1:
        raise ValueError(f"critic_steps is {critic_steps}; use 1 or more.")
    generator_optimizer, discriminator_optimizer = (
        loss_scale.for_dtype(optax.apply_if_finite(optimizer, NEVER), getattr(network, "dtype", jnp.float32))
        for optimizer, network in ((generator_optimizer, generator), (discriminator_optimizer, discriminator))
    )
    gan = _Gan(
        generator,
        discriminator,
        generator_optimizer,
        discriminator_optimizer,
        LOSSES[loss],
        image_shape,
        latent,
        critic_steps,
        weight_clip,
        gradient_penalty_weight,
    )
    losses = tuple(TrainingLoss((name,), functools.partial(gan.initial_loss, component=name)) for name in COMPONENTS)
    return Objective(
        COMPONENTS,
        gan.init,
        gan.step,
        gan.evaluate,
        losses,
        sample=gan.sample,
        collapses=True,
        better=tuple(BETTER.items()),
    )


def _player(state: TrainState, name: str) -> _Player:
    return _Player(state.params[name], _of_component(state.model_state, name), state.opt_state[name])


def _joined(players: dict[str, _Player], step: Int[Array, ""], key: Key[Array, ""]) -> TrainState:
    """The train state of all components."""
    params = {name: player.params for name, player in players.items()}
    model_state = _by_collection({name: player.model_state for name, player in players.items()})
    return TrainState(params, model_state, {name: player.opt_state for name, player in players.items()}, step, key)


def _of_component(model_state: PyTree, name: str) -> PyTree:
    """`{collection: variables}` of one component."""
    return {k: components[name] for k, components in model_state.items() if name in components}


def _by_collection(states: dict[str, PyTree]) -> PyTree:
    """`{collection: {component: variables}}` from `{component: {collection: variables}}`."""
    collections = sorted({k for state in states.values() for k in state})
    return {k: {name: state[k] for name, state in states.items() if k in state} for k in collections}
