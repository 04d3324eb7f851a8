"""What every objective promises: masked entries stay 0, components, metrics, and clear errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lotto_jax.experiments import build
from lotto_jax.models import autoencoder, dcgan, sngan, vae
from lotto_jax.objectives import adversarial, elbo, ranges, reconstruction
from lotto_jax.objectives.state import Batch
from lotto_jax.pruning import masks
from tests import tiny

SHAPE = (8, 8, 3)
SMALL = {"width": 2, "image_size": 8}


def sgd():
    return optax.sgd(0.1, momentum=0.9)


def gan(discriminator=None, loss="hinge", **options):
    discriminator = discriminator or dcgan.Discriminator(**SMALL)
    return adversarial.make(dcgan.Generator(**SMALL), discriminator, sgd(), sgd(), SHAPE, 5, loss, **options)


OBJECTIVES = {
    "autoencoder": lambda: reconstruction.make(autoencoder.ConvAutoencoder(5, **SMALL), sgd(), SHAPE, "bce"),
    "vae": lambda: elbo.make(vae.conv_vae(5, **SMALL), optax.sgd(1e-4), SHAPE, loss="bce"),
    "sngan": lambda: gan(sngan.Discriminator(**SMALL)),
    "wgan": lambda: gan(loss="wasserstein", critic_steps=3, weight_clip=0.05),
}


def batch(size=6):
    image = np.random.default_rng(0).integers(0, 256, (size, *SHAPE), np.uint8)
    return Batch(jnp.asarray(image), jnp.zeros(size, jnp.int32))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_keeps_pruned_entries_at_zero_and_the_structure_of_the_state(name):
    objective = OBJECTIVES[name]()
    state = objective.init(jax.random.key(0))
    assert set(state.params) == set(objective.components)
    for components in state.model_state.values():
        assert set(components) <= set(objective.components)
    keys = iter(jax.random.split(jax.random.key(1), 100))
    mask = masks.ones(state.params)
    mask = jax.tree.map(lambda m: jax.random.bernoulli(next(keys), 0.5, m.shape) if m.ndim else m, mask)
    # A momentum from before the pruning must not revive what was pruned.
    ones = jax.tree.map(jnp.ones_like, state.opt_state)
    pruned = masks.apply(state.params, mask)
    stepped, metrics = jax.jit(objective.step)(
        state._replace(params=pruned, opt_state=ones), mask, batch(), jax.random.key(2)
    )
    assert jax.tree.structure(stepped) == jax.tree.structure(state)
    assert [a.shape for a in jax.tree.leaves(stepped)] == [a.shape for a in jax.tree.leaves(state)]
    assert int(stepped.step) == 1
    assert all(np.isfinite(float(value)) for value in metrics.values())
    for before, after, m in zip(*map(jax.tree.leaves, (state.params, stepped.params, mask)), strict=True):
        assert np.all(np.asarray(after)[~np.broadcast_to(m, after.shape)] == 0)
        assert np.any(np.asarray(after) != np.asarray(before))
    evaluated = objective.evaluate(stepped.params, stepped.model_state, batch(), jax.random.key(3))
    assert all(np.isfinite(float(value)) for value in evaluated.values())
    assert ("collapsed" in evaluated) == objective.collapses
    if objective.collapses:
        broken = stepped.params | {
            "discriminator": jax.tree.map(lambda x: x * jnp.nan, stepped.params["discriminator"])
        }
        assert objective.evaluate(broken, stepped.model_state, batch(), jax.random.key(3))["collapsed"] == 1
    makers = [make for make in (objective.reconstruct, objective.sample) if make is not None]
    assert makers
    for make in makers:
        images = make(stepped.params, stepped.model_state, batch(), jax.random.key(3))
        assert images.shape == (6, *SHAPE)
        assert 0 <= float(images.min()) <= float(images.max()) <= 1


DIRECTIONS = {
    "reconstruction": {"reconstruction_loss": "lower"},
    "diffusion": {"loss": "lower", "bits_per_dim": "lower", **{f"loss_level_{i}": "lower" for i in range(1, 5)}},
    "elbo": {"loss": "lower", "reconstruction_loss": "lower", "kl": "neither"},
    "adversarial": {"generator_loss": "neither", "discriminator_loss": "neither", "collapsed": "neither"},
    "classification": {"loss": "lower", "accuracy": "higher"},
}


@pytest.mark.parametrize("name", build.NETWORKS)
def test_every_metric_has_a_direction_and_the_objective_stays_hashable(name):
    small = {"linear_autoencoder": {}, "dit": {"width": 4}, "unet": {"width": 2, "multipliers": (1, 1), "blocks": 1}}
    width = small.get(name, {"width": 2})
    goal = build.NETWORKS[name].objective
    objective = build.objective(tiny.config(model={"name": name, **width}, objective={"name": goal}), (16, 16, 3), 4)
    state = jax.eval_shape(objective.init, jax.random.key(0))
    images = Batch(jnp.zeros((2, 16, 16, 3), jnp.uint8), jnp.zeros(2, jnp.int32))
    metrics = jax.eval_shape(objective.evaluate, state.params, state.model_state, images, jax.random.key(1))
    assert dict(objective.better) == DIRECTIONS[goal]
    assert set(metrics) == set(DIRECTIONS[goal]) and len(objective.better) == len(metrics)
    assert {objective: name}[objective._replace()] == name


def test_ranges_agree_at_every_byte():
    stored = np.arange(256, dtype=np.uint8)
    expected = stored / np.float64(255)
    unit, signed = ranges.to_unit(jnp.asarray(stored)), ranges.to_signed(jnp.asarray(stored))
    assert unit.dtype == signed.dtype == jnp.float32
    np.testing.assert_allclose(unit, expected, atol=1e-7)
    for found in (signed, ranges.signed_from_unit(unit)):
        np.testing.assert_allclose(found, 2 * expected - 1, atol=2e-7)
        np.testing.assert_allclose(ranges.unit_from_signed(found), expected, atol=2e-7)


def test_kl_to_normal():
    mean, log_variance = np.array([[0.5, -1.0]], np.float32), np.array([[0.2, -0.7]], np.float32)
    z = np.linspace(-12, 12, 200_001)
    expected = 0.0
    for m, v in zip(mean[0].astype(np.float64), np.exp(log_variance[0].astype(np.float64)), strict=True):
        log_q = -0.5 * ((z - m) ** 2 / v + np.log(2 * np.pi * v))
        expected += np.trapezoid(np.exp(log_q) * (log_q + 0.5 * (z**2 + np.log(2 * np.pi))), z)
    np.testing.assert_allclose(elbo.kl_to_normal(mean, log_variance), [expected], rtol=1e-5)


def test_gradient_penalty_of_a_linear_critic():
    slope = jax.random.normal(jax.random.key(0), SHAPE)
    real, fake = jax.random.normal(jax.random.key(1), (2, 4, *SHAPE))
    critic = lambda image: jnp.sum(image * slope[None], (1, 2, 3))  # noqa: E731
    penalty = adversarial.gradient_penalty(critic, real, fake, jax.random.key(2))
    np.testing.assert_allclose(penalty, (np.linalg.norm(slope) - 1) ** 2, rtol=1e-5)


def test_statistics_take_in_the_real_batch_then_the_fake_one_and_one_power_iteration_a_step():
    discriminator = dcgan.Discriminator(**SMALL)
    objective = gan(discriminator)
    state = objective.init(jax.random.key(0))
    key = jax.random.key(2)
    z = jax.random.normal(jax.random.split(key, (1, 2))[0, 0], (6, 5))
    generator = {
        "params": state.params["generator"],
        "batch_stats": state.model_state["batch_stats"]["generator"],
    }
    fake, _ = dcgan.Generator(**SMALL).apply(generator, z, train=True, mutable=["batch_stats"])
    expected = {"batch_stats": state.model_state["batch_stats"]["discriminator"]}
    for image in (ranges.to_signed(batch().image), fake):
        variables = {"params": state.params["discriminator"], **expected}
        _, expected = discriminator.apply(variables, image, train=True, mutable=["batch_stats"])
    stepped, _ = jax.jit(objective.step)(state, masks.ones(state.params), batch(), key)
    found = stepped.model_state["batch_stats"]["discriminator"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected["batch_stats"])

    discriminator = sngan.Discriminator(**SMALL)
    objective = gan(discriminator)
    state = objective.init(jax.random.key(0))
    spectral = {"spectral_stats": state.model_state["spectral_stats"]["discriminator"]}
    variables = {"params": state.params["discriminator"], **spectral}
    _, expected = discriminator.apply(variables, fake, train=True, mutable=["spectral_stats"])
    stepped, _ = jax.jit(objective.step)(state, masks.ones(state.params), batch(), key)
    found = stepped.model_state["spectral_stats"]["discriminator"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected["spectral_stats"])


def test_bad_settings_are_clear_errors():
    with pytest.raises(ValueError, match="loss is 'lsgan'; an adversarial objective has bce, hinge, wasserstein"):
        gan(loss="lsgan")
    with pytest.raises(ValueError, match="critic_steps is 0"):
        gan(critic_steps=0)
    with pytest.raises(ValueError, match="loss is 'l1'; a reconstruction loss is 'mse' or 'bce'"):
        elbo.make(vae.conv_vae(5, **SMALL), sgd(), SHAPE, loss="l1")
    objective = gan(critic_steps=4)
    state = objective.init(jax.random.key(0))
    with pytest.raises(ValueError, match="The batch has 6 images, which 4 critic steps can't share"):
        jax.eval_shape(objective.step, state, masks.ones(state.params), batch(), jax.random.key(1))
