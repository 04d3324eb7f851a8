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
from jaxtyping import Array, Bool, Float, Key, PyTree, UInt8

from lotto_jax.objectives import loss_scale
from lotto_jax.objectives.state import Batch, Better, Metrics, Objective, TrainingLoss, TrainState, masked_update
from lotto_jax.pruning import masks

Logits = Float[Array, "batch"]
GRAY_LEVEL = 2 / 255  # of images in [-1, 1]
NEVER = 2**31 - 1

BETTER: tuple[tuple[str, Better], ...] = (
    ("generator_loss", "neither"),
    ("discriminator_loss", "neither"),
    ("collapsed", "neither"),
)


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


def to_signed(image: UInt8[Array, "..."]) -> Float[Array, "..."]:
    """Uint8 images as float32 in [-1, 1], the range of generators."""
    return image.astype(jnp.float32) / 127.5 - 1.0


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
    losses = LOSSES[loss]
    generator_optimizer, discriminator_optimizer = (
        loss_scale.for_dtype(optax.apply_if_finite(optimizer, NEVER), network.dtype)
        for optimizer, network in ((generator_optimizer, generator), (discriminator_optimizer, discriminator))
    )

    def init(key: Key[Array, ""]) -> TrainState:
        generator_key, discriminator_key, run_key = jax.random.split(key, 3)
        made = {
            "generator": generator.init(generator_key, jnp.zeros((1, latent)), train=False),
            "discriminator": discriminator.init(discriminator_key, jnp.zeros((1, *image_shape)), train=False),
        }
        params = {name: variables["params"] for name, variables in made.items()}
        collections = {name: {k: v for k, v in made[name].items() if k != "params"} for name in made}
        opt_state = {
            "generator": generator_optimizer.init(params["generator"]),
            "discriminator": discriminator_optimizer.init(params["discriminator"]),
        }
        return TrainState(params, _by_collection(collections), opt_state, jnp.zeros((), jnp.int32), run_key)

    def generate(params: PyTree, state: PyTree, z: Array, train: bool) -> tuple[Array, PyTree]:
        return generator.apply({"params": params, **state}, z, train=train, mutable=list(state))

    def judge(params: PyTree, state: PyTree, image: Array, train: bool) -> tuple[Logits, PyTree]:
        return discriminator.apply({"params": params, **state}, image, train=train, mutable=list(state))

    def discriminator_loss(
        params: PyTree, model_state: PyTree, real: Array, fake: Array, key: Key[Array, ""]
    ) -> tuple[Array, PyTree]:
        real_logits, after_real = judge(params, model_state, real, True)
        between = {**model_state, **{k: v for k, v in after_real.items() if k == "batch_stats"}}
        fake_logits, after_fake = judge(params, between, fake, True)
        total = losses.discriminator(real_logits, fake_logits)
        if gradient_penalty_weight:
            penalty = gradient_penalty(lambda x: judge(params, model_state, x, True)[0], real, fake, key)
            total += gradient_penalty_weight * penalty
        return total, after_fake

    def generator_loss(params: PyTree, model_state: PyTree, image: Array) -> tuple[Array, PyTree]:
        logits, after = judge(params, model_state, image, True)
        return losses.generator(logits), after

    def update_discriminator(
        carry: tuple[PyTree, PyTree, PyTree], mask: masks.Mask, real: Array, fake: Array, key: Key[Array, ""]
    ) -> tuple[tuple[PyTree, PyTree, PyTree], Array]:
        params, model_state, opt_state = carry
        loss_fn = loss_scale.value_and_grad(discriminator_loss, opt_state)
        (value, model_state), grads = loss_fn(params, model_state, real, fake, key)
        params, opt_state = masked_update(discriminator_optimizer, grads, opt_state, params, mask)
        if weight_clip is not None:
            params = jax.tree.map(lambda p: jnp.clip(p, -weight_clip, weight_clip), params)
        return (params, model_state, opt_state), value

    def step(state: TrainState, mask: masks.Mask, batch: Batch, key: Key[Array, ""]) -> tuple[TrainState, Metrics]:
        total = batch.image.shape[0]
        if total % critic_steps:
            raise ValueError(
                f"The batch has {total} images, which {critic_steps} critic steps can't share equally; "
                f"make the batch size a multiple of critic_steps."
            )
        size = total // critic_steps
        real = to_signed(batch.image).reshape(critic_steps, size, *image_shape)
        keys = jax.random.split(key, (critic_steps, 2))
        params: PyTree = state.params
        states = {name: _of_component(state.model_state, name) for name in params}

        def fakes(params: PyTree, key: Key[Array, ""]) -> tuple[Array, PyTree]:
            return generate(params, states["generator"], jax.random.normal(key, (size, latent)), True)

        def critic_step(carry: PyTree, part: tuple[Array, Array]) -> tuple[PyTree, Array]:
            real, keys = part
            fake = fakes(params["generator"], keys[0])[0]
            return update_discriminator(carry, mask["discriminator"], real, fake, keys[1])

        carry = (params["discriminator"], states["discriminator"], state.opt_state["discriminator"])
        if critic_steps > 1:
            carry, _ = lax.scan(critic_step, carry, (real[:-1], keys[:-1]))
        # The last fakes serve both updates, so their pass through the generator is made once.
        fake, pullback, generator_state = jax.vjp(
            lambda params: fakes(params, keys[-1, 0]), params["generator"], has_aux=True
        )
        carry, discriminator_value = update_discriminator(carry, mask["discriminator"], real[-1], fake, keys[-1, 1])
        new_discriminator, discriminator_state, discriminator_opt = carry
        loss_fn = loss_scale.value_and_grad(generator_loss, state.opt_state["generator"], argnums=2)
        (generator_value, _), image_gradient = loss_fn(new_discriminator, discriminator_state, fake)
        new_generator, generator_opt = masked_update(
            generator_optimizer,
            pullback(image_gradient)[0],
            state.opt_state["generator"],
            params["generator"],
            mask["generator"],
        )
        new_state = TrainState(
            {"generator": new_generator, "discriminator": new_discriminator},
            _by_collection({"generator": generator_state, "discriminator": discriminator_state}),
            {"generator": generator_opt, "discriminator": discriminator_opt},
            state.step + 1,
            state.key,
        )
        return new_state, {"generator_loss": generator_value, "discriminator_loss": discriminator_value}

    def initial_loss(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""], component: str) -> Array:
        states = {name: _of_component(model_state, name) for name in params}
        fake_key, penalty_key = jax.random.split(key)
        z = jax.random.normal(fake_key, (batch.image.shape[0], latent))
        fake = generate(params["generator"], states["generator"], z, True)[0]
        if component == "generator":
            return generator_loss(params["discriminator"], states["discriminator"], fake)[0]
        judged = params["discriminator"], states["discriminator"]
        return discriminator_loss(*judged, to_signed(batch.image), fake, penalty_key)[0]

    def fixed_fakes(params: PyTree, model_state: PyTree, count: int, key: Key[Array, ""]) -> Array:
        z = jax.random.normal(key, (count, latent))
        return generate(params["generator"], _of_component(model_state, "generator"), z, False)[0]

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Metrics:
        fake = fixed_fakes(params, model_state, batch.image.shape[0], key)
        real_logits, fake_logits = (
            judge(params["discriminator"], _of_component(model_state, "discriminator"), image, False)[0]
            for image in (to_signed(batch.image), fake)
        )
        found = {
            "generator_loss": losses.generator(fake_logits),
            "discriminator_loss": losses.discriminator(real_logits, fake_logits),
        }
        broken = ~jnp.isfinite(jnp.stack(list(found.values()))).all()
        return found | {"collapsed": (is_collapsed(fake) | broken).astype(jnp.float32)}

    def sample(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> Array:
        return 0.5 * fixed_fakes(params, model_state, batch.image.shape[0], key) + 0.5

    components = ("generator", "discriminator")
    minimized = tuple(TrainingLoss((name,), functools.partial(initial_loss, component=name)) for name in components)
    return Objective(components, init, step, evaluate, minimized, sample=sample, collapses=True, better=BETTER)


def _of_component(model_state: PyTree, name: str) -> PyTree:
    """`{collection: variables}` of one component."""
    return {k: components[name] for k, components in model_state.items() if name in components}


def _by_collection(states: dict[str, PyTree]) -> PyTree:
    """`{collection: {component: variables}}` from `{component: {collection: variables}}`."""
    collections = sorted({k for state in states.values() for k in state})
    return {k: {name: state[k] for name, state in states.items() if k in state} for k in collections}
