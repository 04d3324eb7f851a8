"""SNIP and GraSP against PyTorch autograd on the published equations, for a discriminator's loss."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax.pruning import saliency

torch = pytest.importorskip("torch")


class Discriminator(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.leaky_relu(nn.Conv(5, (4, 4), (2, 2), padding=1, name="conv1")(x), 0.2)
        x = nn.tanh(nn.Conv(7, (4, 4), (2, 2), padding=1, name="conv2")(x))
        return nn.Dense(1, name="logit")(x.mean((1, 2)))


def torch_discriminator(p, x):
    x = torch.nn.functional.conv2d(x, p["conv1"]["kernel"], p["conv1"]["bias"], stride=2, padding=1)
    x = torch.nn.functional.leaky_relu(x, 0.2)
    x = torch.tanh(torch.nn.functional.conv2d(x, p["conv2"]["kernel"], p["conv2"]["bias"], stride=2, padding=1))
    return x.mean((2, 3)) @ p["logit"]["kernel"] + p["logit"]["bias"]


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_scores_agree(method):
    real, fake = np.random.default_rng(0).normal(size=(2, 4, 8, 8, 3)).astype(np.float32)
    params = Discriminator().init(jax.random.key(0), real)["params"]

    def loss(p):
        on_real, on_fake = (
            Discriminator().apply({"params": p}, real),
            Discriminator().apply({"params": p}, fake),
        )
        return jnp.mean(nn.softplus(-on_real)) + jnp.mean(nn.softplus(on_fake))

    ours = jax.jit(lambda p: getattr(saliency, method)(loss, p))(params)

    def to_torch(x):
        array = np.array(x).transpose(3, 2, 0, 1) if x.ndim == 4 else np.array(x)
        return torch.from_numpy(array.copy()).requires_grad_()

    theirs = jax.tree.map(to_torch, params)
    leaves = jax.tree.leaves(theirs)
    images = [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in (real, fake)]
    on_real, on_fake = (torch_discriminator(theirs, x) for x in images)
    softplus = torch.nn.functional.softplus
    value = softplus(-on_real).mean() + softplus(on_fake).mean()
    gradient = torch.autograd.grad(value, leaves, create_graph=True)
    if method == "snip":
        scores = [(w * g).abs() for w, g in zip(leaves, gradient, strict=True)]
        total = sum(s.sum() for s in scores if s.ndim >= 2)
        scores = [s / total for s in scores]
    else:
        along = sum((g.detach() * g).sum() for g in gradient)
        products = torch.autograd.grad(along, leaves)
        scores = [w * h for w, h in zip(leaves, products, strict=True)]  # the paper's -theta H g with the sign turned
    for a, b in zip(jax.tree.leaves(ours), scores, strict=True):
        b = b.detach().numpy()
        b = b.transpose(2, 3, 1, 0) if b.ndim == 4 else b
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5 * np.abs(b).max())
