"""Every objective against its PyTorch twin: losses, gradients, and params after five optimizer steps."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from lotto_jax.experiments import build
from lotto_jax.models import autoencoder, dcgan, layers, resnet_gan, sngan, unet, vae
from lotto_jax.objectives import adversarial, diffusion, elbo, flow_matching, reconstruction
from lotto_jax.objectives.state import Batch
from lotto_jax.pruning import masks
from scripts.benchmarks import torch_networks as twins
from tests.parity import networks

SHAPE = (32, 32, 3)
LATENT = 6
STEPS = 5


def batches(size=8, steps=STEPS):
    rng = np.random.default_rng(0)
    for i in range(steps):
        # Smooth images: the gradients of noise are mostly cancellation.
        coarse = rng.integers(0, 256, (size, 4, 4, 3))
        image = coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
        yield Batch(jnp.asarray(image), jnp.zeros(size, jnp.int32)), jax.random.key(100 + i)


def assert_params_close(model, params, before, tolerance):
    """Updates agree to `tolerance` of their norm, leaf by leaf; small leaves to that of the whole update."""
    found = list(networks.parameters(model, params))
    start = {name: value for name, _, value in networks.parameters(model, before)}
    moved = {name: value - start[name] for name, _, value in found}
    scale = np.sqrt(sum(float((m**2).sum()) for m in moved.values()))
    assert scale > 0
    for name, parameter, value in found:
        error = float((parameter.detach() - value).norm())
        assert error <= tolerance * max(float(moved[name].norm()), 0.05 * scale), (name, error, scale)


def adam(eps=1e-3):
    """Adam for both sides; eps keeps rounding in tiny gradients from being scaled up to whole steps."""
    return optax.adam(1e-3, b1=0.5, eps=eps)


def torch_adam(model, eps=1e-3):
    return torch.optim.Adam(model.parameters(), 1e-3, (0.5, 0.999), eps=eps)


def assert_gradients_close(model, opt_state):
    """Gradients agree to 1e-4 of the leaf's largest; ours are read off Adam's first moment after one step.

    A bias before a batch norm has gradient 0, in floats a sum of rounding errors, so no leaf is held to
    less than 1e-6 (8 float32 roundings) of the largest gradient.
    """
    overall = max(float(p.grad.abs().max()) for p in model.parameters())
    for name, parameter, moment in networks.parameters(model, opt_state[0].mu):
        scale = max(float(parameter.grad.abs().max()), 1e-2 * overall)
        assert float((parameter.grad - 2 * moment).abs().max()) <= 1e-4 * scale, name


def test_rmsprop_is_that_of_pytorch_at_the_size_of_a_wgans_gradients():
    gradients = np.random.default_rng(0).normal(0, 1e-6, (20, 50)).astype(np.float32)
    ours = build.OPTIMIZERS["rmsprop"](5e-5)
    theirs = torch.zeros(50, requires_grad=True)
    optimizer = torch.optim.RMSprop([theirs], 5e-5)
    params = jnp.zeros(50)
    state = ours.init(params)
    for gradient in gradients:
        updates, state = ours.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
    np.testing.assert_allclose(params, theirs.detach().numpy(), rtol=1e-4)
    assert float(jnp.min(jnp.abs(params))) > 1e-6  # steps are of the size of the rate, however small gradients are


def half_mask(params):
    """A random half of the weights pruned; biases and scales kept."""
    keys = iter(jax.random.split(jax.random.key(5), 200))
    dense = masks.ones(params)
    return jax.tree.map(lambda m: jax.random.bernoulli(next(keys), 0.5, m.shape) if m.ndim else m, dense)


def scaled(params):
    """Weights scaled to keep variances. At test widths DCGAN's 0.02 makes almost constant images, whose tiny
    variances batch norm then divides rounding errors by."""
    return jax.tree.map(lambda p: p * np.sqrt(2 / np.prod(p.shape[:-1])) / jnp.std(p) if p.ndim > 1 else p, params)


def mask_hooks(model, mask, optimizer):
    """Prune the torch twin: drop gradients before each optimizer step, put weights back to 0 after it."""
    kept = [(p, m) for _, p, m in networks.parameters(model, mask) if m.ndim]

    def before(*_):
        for p, m in kept:
            p.grad.mul_(m)

    def after(*_):
        with torch.no_grad():
            for p, m in kept:
                p.mul_(m)

    after()
    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


SINGLE = {
    "autoencoder mse": (
        "mse",
        lambda: autoencoder.ConvAutoencoder(LATENT, 4),
        lambda: twins.Autoencoder(4, LATENT),
    ),
    "autoencoder bce": (
        "bce",
        lambda: autoencoder.ConvAutoencoder(LATENT, 4),
        lambda: twins.Autoencoder(4, LATENT),
    ),
    "vae mse": ("mse", lambda: vae.conv_vae(LATENT, 4), lambda: twins.VAE(4, LATENT)),
    "vae bce": ("bce", lambda: vae.conv_vae(LATENT, 4), lambda: twins.VAE(4, LATENT)),
    "resnet vae": ("mse", lambda: vae.resnet_vae(LATENT, 8), lambda: twins.VAE(8, LATENT, resnet=True)),
}


@pytest.mark.parametrize("name", SINGLE)
def test_autoencoders(name):
    loss, make_model, make_twin = SINGLE[name]
    is_vae = "vae" in name

    eps = 1.0 if is_vae else 1e-3  # the ELBO sums over 3072 values, and so do its gradients
    if is_vae:
        objective = elbo.make(make_model(), adam(eps), SHAPE, beta=4.0, loss=loss)
    else:
        objective = reconstruction.make(make_model(), adam(eps), SHAPE, loss=loss)
    state = objective.init(jax.random.key(0))
    mask = half_mask(state.params)
    state = state._replace(params=masks.apply(state.params, mask))
    start = state.params
    twin = networks.load(make_twin(), state.params, state.model_state.get("spectral_stats"))
    optimizer = torch_adam(twin, eps)
    mask_hooks(twin, mask, optimizer)
    step = jax.jit(objective.step)
    for i, (batch, key) in enumerate(batches()):
        optimizer.zero_grad()
        image = networks.nchw(batch.image)
        if is_vae:
            noise = torch.tensor(np.array(jax.random.normal(key, (len(image), LATENT))))
            expected = twins.elbo(twin, image, noise, 4.0, loss)
        else:
            expected = {"loss": twins.reconstruction_loss(twin, image, loss)}
        expected["loss"].backward()
        optimizer.step()
        state, metrics = step(state, mask, batch, key)
        rounding = 1.2e-7 * expected["loss"].item()  # the terms move with updates made by the whole loss
        for metric, value in expected.items():
            np.testing.assert_allclose(metrics[metric], value.item(), 1e-4, rounding, err_msg=metric)
        if i == 0:
            assert_gradients_close(twin, state.opt_state)
    assert_params_close(twin, state.params, start, 1e-3)


DENOISERS = {  # with the multipliers of the UNet
    "diffusion of noise": (diffusion.make, (1,), {"schedule": "linear"}),
    "diffusion of v": (diffusion.make, (1,), {"schedule": "cosine", "prediction": "v", "noise_steps": 100}),
    "flow": (flow_matching.make, (1, 2), {}),
    "conditional optimal transport": (flow_matching.make, (1,), {"smallest_noise": 0.1}),
}


def expected_kept(steps, schedule):
    """Products of 1 - beta in float64, from the papers' formulas."""
    if schedule == "linear":
        return torch.cumprod(1 - torch.linspace(1e-4, 0.02, steps, dtype=torch.float64), 0)
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    f = torch.cos((time + 0.008) / 1.008 * torch.pi / 2) ** 2
    return torch.cumprod(1 - torch.clamp(1 - f[1:] / f[:-1], max=0.999), 0)


@pytest.mark.parametrize("name", DENOISERS)
def test_denoisers(name):
    make, multipliers, options = DENOISERS[name]
    small = {"width": 8, "multipliers": multipliers, "blocks": 1, "attention": (4,), "groups": 4, "channels": 3}
    size = 8
    objective = make(unet.UNet(**small, image_size=size), adam(), (size, size, 3), **options, ema=0.9)
    state = objective.init(jax.random.key(0))
    mask = half_mask(state.params)
    # Layers that start by adding nothing would hide what is behind them.
    fill = lambda p: p + jax.random.normal(jax.random.key(9), p.shape) * 0.1 if p.ndim > 1 else p  # noqa: E731
    state = state._replace(params=masks.apply(jax.tree.map(fill, state.params), mask))
    start = state.params["denoiser"]
    twin = networks.load(twins.UNet(**small, size=size), start)
    optimizer = torch_adam(twin)
    mask_hooks(twin, mask["denoiser"], optimizer)
    seen = [(batch._replace(image=batch.image[:, ::4, ::4]), key) for batch, key in batches()]
    # The larger network has our own convolutions; plain ones compile faster.
    with contextlib.nullcontext() if len(multipliers) > 1 else layers.plain_lowering():
        step = jax.jit(objective.step).lower(state, mask, *seen[0]).compile()
    for i, (batch, key) in enumerate(seen):
        optimizer.zero_grad()
        time_key, noise_key, _ = jax.random.split(key, 3)
        uniform = torch.tensor(np.array(jax.random.uniform(time_key, (8,))))
        noise = networks.nchw(jax.random.normal(noise_key, (8, size, size, 3)))
        image = networks.nchw(batch.image)
        if make is diffusion.make:
            kept = expected_kept(options.get("noise_steps", 1000), options["schedule"])
            expected = twins.diffusion_loss(twin, image, noise, uniform, kept, options.get("prediction", "epsilon"))
        else:
            expected = twins.flow_loss(twin, image, noise, uniform, options.get("smallest_noise", 0.0))
        expected.backward()
        optimizer.step()
        state, metrics = step(state, mask, batch, key)
        np.testing.assert_allclose(metrics["loss"], expected.item(), rtol=1e-4)
        if i == 0:
            moments = state.opt_state[0]
            own = moments._replace(mu=moments.mu["denoiser"])
            assert_gradients_close(twin, (own,))
    assert_params_close(twin, state.params["denoiser"], start, 1e-3)


GANS = {
    "dcgan": ("bce", dcgan, lambda: dcgan.Discriminator(4), lambda: twins.Discriminator(4), {}),
    "sngan": ("hinge", dcgan, lambda: sngan.Discriminator(4), lambda: twins.SNDiscriminator(4), {}),
    "resnet dcgan": (
        "hinge",
        resnet_gan,
        lambda: resnet_gan.Discriminator(8),
        lambda: twins.ResNetDiscriminator(8),
        {},
    ),
    "wgan": (
        "wasserstein",
        dcgan,
        lambda: dcgan.Discriminator(4),
        lambda: twins.Discriminator(4),
        {"critic_steps": 2, "weight_clip": 0.03},
    ),
    "wgan with one critic step": (
        "wasserstein",
        dcgan,
        lambda: dcgan.Discriminator(4),
        lambda: twins.Discriminator(4),
        {"weight_clip": 0.03},
    ),
    "wgan with gradient penalty": (
        "wasserstein",
        dcgan,
        lambda: dcgan.Discriminator(4, batch_norm=False),
        lambda: twins.Discriminator(4, batch_norm=False),
        {"gradient_penalty_weight": 10.0},
    ),
}


@pytest.mark.parametrize("name", GANS)
def test_gans(name):
    loss, family, make_discriminator, make_twin, options = GANS[name]
    width = 4 if family is dcgan else 8
    objective = adversarial.make(
        family.Generator(width), make_discriminator(), adam(), adam(), SHAPE, LATENT, loss, **options
    )
    critic_steps = options.get("critic_steps", 1)
    state = objective.init(jax.random.key(0))
    mask = half_mask(state.params)
    state = state._replace(params=masks.apply(scaled(state.params), mask))
    start = state.params
    generator = twins.Generator(4, LATENT) if family is dcgan else twins.ResNetGenerator(8, LATENT)
    pair = {"generator": generator, "discriminator": make_twin()}
    spectral = state.model_state.get("spectral_stats", {})
    for component, twin in pair.items():
        networks.load(twin, state.params[component], spectral.get(component))
    optimizers = {component: torch_adam(twin) for component, twin in pair.items()}
    for component, twin in pair.items():
        mask_hooks(twin, mask[component], optimizers[component])
    step = jax.jit(objective.step)
    size = 8
    for i, (batch, key) in enumerate(batches(size * critic_steps)):
        keys = jax.random.split(key, (critic_steps, 2))  # as the objective draws them
        noises = [jax.random.normal(k[0], (size, LATENT)) for k in keys]
        shares = [jax.random.uniform(k[1], (size, 1, 1, 1)) for k in keys]
        expected = twins.gan_step(
            *pair.values(),
            tuple(optimizers.values()),
            networks.nchw(batch.image),
            torch.tensor(np.array(noises)),
            loss,
            options.get("weight_clip"),
            options.get("gradient_penalty_weight", 0.0),
            torch.tensor(np.array(shares)),
        )
        state, metrics = step(state, mask, batch, key)
        for metric, value in expected.items():
            np.testing.assert_allclose(metrics[metric], value.item(), rtol=1e-4, atol=1e-5, err_msg=metric)
        if i == 0 and critic_steps == 1:
            for component, twin in pair.items():
                assert_gradients_close(twin, state.opt_state[component].inner_state)
    for component, twin in pair.items():
        assert_params_close(twin, state.params[component], start[component], 1e-3)
