"""Every objective against its PyTorch twin: losses, gradients, and params after five optimizer steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from lotto_jax.models import autoencoder, dcgan, resnet_gan, sngan, vae
from lotto_jax.objectives import adversarial, elbo, reconstruction
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
    """Updates agree to `tolerance` of their norm, leaf by leaf; small leaves are judged by the whole update."""
    found = list(networks.parameters(model, params))
    start = {name: value for name, _, value in networks.parameters(model, before)}
    moved = {name: value - start[name] for name, _, value in found}
    scale = np.sqrt(sum(float((m**2).sum()) for m in moved.values()))
    assert scale > 0
    for name, parameter, value in found:
        error = float((parameter.detach() - value).norm())
        assert error <= tolerance * max(float(moved[name].norm()), 0.05 * scale), (name, error, scale)


def gradients_by_sgd(make, state, mask, batch, key):
    """The gradients, read off one step of plain gradient descent with rate 1."""
    objective = make(optax.sgd(1.0))
    start = state._replace(opt_state=objective.init(jax.random.key(0)).opt_state)
    return jax.jit(objective.step)(start, mask, batch, key)


def half_mask(params):
    """A random half of the weights pruned; biases and scales kept."""
    keys = iter(jax.random.split(jax.random.key(5), 200))
    dense = masks.ones(params)
    return jax.tree.map(lambda m: jax.random.bernoulli(next(keys), 0.5, m.shape) if m.ndim else m, dense)


def mask_hooks(model, mask, optimizer):
    """Prune the torch twin: after each optimizer step put pruned weights back to 0 and drop their gradients before."""
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
    "autoencoder mse": ("mse", lambda: autoencoder.ConvAutoencoder(LATENT, 4), lambda: twins.Autoencoder(4, LATENT)),
    "autoencoder bce": ("bce", lambda: autoencoder.ConvAutoencoder(LATENT, 4), lambda: twins.Autoencoder(4, LATENT)),
    "vae mse": ("mse", lambda: vae.conv_vae(LATENT, 4), lambda: twins.VAE(4, LATENT)),
    "vae bce": ("bce", lambda: vae.conv_vae(LATENT, 4), lambda: twins.VAE(4, LATENT)),
    "resnet vae": ("mse", lambda: vae.resnet_vae(LATENT, 8), lambda: twins.VAE(8, LATENT, resnet=True)),
}


@pytest.mark.parametrize("name", SINGLE)
def test_autoencoders(name):
    loss, make_model, make_twin = SINGLE[name]
    is_vae = "vae" in name

    def make(optimizer):
        if is_vae:
            return elbo.make(make_model(), optimizer, SHAPE, beta=4.0, loss=loss)
        return reconstruction.make(make_model(), optimizer, SHAPE, loss=loss)

    objective = make(optax.adam(1e-3, eps=1e-3))  # an eps that keeps rounding in tiny gradients from being scaled up
    state = objective.init(jax.random.key(0))
    mask = half_mask(state.params)
    state = state._replace(params=masks.apply(state.params, mask))
    start = state.params
    twin = networks.load(make_twin(), state.params, state.model_state.get("spectral_stats"))
    optimizer = torch.optim.Adam(twin.parameters(), 1e-3, eps=1e-3)
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
        if i == 0:
            stepped, _ = gradients_by_sgd(make, state, mask, batch, key)
            grads = jax.tree.map(lambda a, b: a - b, state.params, stepped.params)
            for path, parameter, grad in networks.parameters(twin, grads):
                kept = parameter.grad * (parameter != 0) if parameter.ndim > 1 else parameter.grad
                scale = max(float(kept.abs().max()), 1e-3)
                assert float((kept - grad).abs().max()) <= 1e-4 * scale, path
        optimizer.step()
        state, metrics = step(state, mask, batch, key)
        for metric, value in expected.items():
            np.testing.assert_allclose(metrics[metric], value.item(), rtol=1e-4, err_msg=metric)
    assert_params_close(twin, state.params, start, 1e-3)
