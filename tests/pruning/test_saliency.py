"""SNIP and GraSP against float64 finite differences of the same losses in numpy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax.pruning import saliency

RNG = np.random.default_rng(0)
PARAMS = {
    "hidden": {"kernel": RNG.normal(size=(4, 6)), "bias": RNG.normal(size=6)},
    "out": {"kernel": RNG.normal(size=(6, 3)), "bias": RNG.normal(size=3)},
}
X, Y = RNG.normal(size=(3, 5, 4)), RNG.normal(size=(3, 5, 3))


def loss(params, batch, xp=jnp):
    x, y = batch
    h = xp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
    return xp.mean((h @ params["out"]["kernel"] + params["out"]["bias"][None] - y) ** 2)


def flatten(tree) -> np.ndarray:
    return np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in jax.tree.leaves(tree)])


def numpy_loss(theta: np.ndarray) -> float:
    """Mean over the three batches, in float64."""
    leaves, start = [], 0
    for leaf in jax.tree.leaves(PARAMS):
        leaves.append(theta[start : start + leaf.size].reshape(leaf.shape))
        start += leaf.size
    params = jax.tree.unflatten(jax.tree.structure(PARAMS), leaves)
    return float(np.mean([loss(params, (x, y), np) for x, y in zip(X, Y, strict=True)]))


def derivative(f, theta: np.ndarray, step: float) -> np.ndarray:
    """Central differences with Richardson extrapolation: error O(step^4)."""

    def central(h):
        return np.array([(f(theta + h * e) - f(theta - h * e)) / (2 * h) for e in np.eye(theta.size)])

    return (4 * central(step / 2) - central(step)) / 3


THETA = flatten(PARAMS)
GRADIENT = derivative(numpy_loss, THETA, 1e-3)
FLOAT32 = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), PARAMS)
BATCHES = (jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32))


def test_snip_is_the_normalized_product():
    scores = jax.jit(lambda p: saliency.snip(saliency.mean_over(loss, BATCHES), p))(FLOAT32)
    expected = np.abs(THETA * GRADIENT)
    kernels = flatten(jax.tree.map(lambda x: np.full(x.shape, x.ndim == 2), PARAMS)) == 1
    expected /= expected[kernels].sum()
    np.testing.assert_allclose(flatten(scores), expected, rtol=1e-4, atol=1e-7)
    assert jax.tree.map(jnp.shape, scores) == jax.tree.map(jnp.shape, FLOAT32)
    assert flatten(scores)[kernels].sum() == pytest.approx(1, rel=1e-6)


def test_grasp_is_the_weight_times_the_hessian_gradient_product():
    """H g is the directional derivative of the gradient along g, so a finite difference of gradients."""
    scores = jax.jit(lambda p: saliency.grasp(saliency.mean_over(loss, BATCHES), p))(FLOAT32)
    h = 1e-3
    along = [derivative(numpy_loss, THETA + s * GRADIENT, 1e-3) for s in (h, -h, h / 2, -h / 2)]
    coarse, fine = (along[0] - along[1]) / (2 * h), (along[2] - along[3]) / h
    expected = THETA * (4 * fine - coarse) / 3
    np.testing.assert_allclose(flatten(scores), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_removing_the_lowest_grasp_scores_keeps_more_gradient_than_removing_the_highest():
    """The sign: to first order, removing weight i changes ||g||^2 by -2 theta_i (H g)_i."""
    scores = flatten(saliency.grasp(lambda p: loss(p, (BATCHES[0][0], BATCHES[1][0])), FLOAT32))
    gradient = jax.grad(lambda t: loss(unflatten(t), (BATCHES[0][0], BATCHES[1][0])))

    def unflatten(theta):
        shapes = jax.tree.leaves(jax.tree.map(lambda x: np.zeros(x.shape), PARAMS))
        parts = jnp.split(theta, np.cumsum([x.size for x in shapes])[:-1])
        leaves = [p.reshape(x.shape) for p, x in zip(parts, shapes, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(PARAMS), leaves)

    theta = jnp.asarray(THETA, jnp.float32)
    norm = jax.jit(lambda t: jnp.sum(gradient(t) ** 2))
    order, shrink = np.argsort(scores), 0.01  # a small step towards removal, where first order holds
    low = norm(theta.at[order[:8]].multiply(1 - shrink))
    high = norm(theta.at[order[-8:]].multiply(1 - shrink))
    assert low > norm(theta) > high


def test_mean_over_batches_is_the_loss_of_the_union():
    whole = tuple(b.reshape(-1, b.shape[-1]) for b in BATCHES)
    for score in (saliency.snip, saliency.grasp):
        a = score(saliency.mean_over(loss, BATCHES), FLOAT32)
        b = score(lambda p: loss(p, whole), FLOAT32)
        np.testing.assert_allclose(flatten(a), flatten(b), rtol=1e-4, atol=1e-6)


def test_a_loss_without_gradient_gives_finite_scores():
    scores = saliency.snip(lambda p: jnp.float32(1), FLOAT32)
    np.testing.assert_array_equal(flatten(scores), 0)


@jax.custom_vjp
def tripled(x):
    return x**3


tripled.defvjp(lambda x: (x**3, x), lambda x, g: (3 * x**2 * g,))


def test_grasp_goes_through_layers_with_their_own_derivative_and_under_vmap():
    params = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)}
    own = saliency.grasp(lambda p: jnp.sum(tripled(p["w"])), params)
    # L = sum w^3: g = 3 w^2, H = diag(6 w), so the score is w * 6 w * 3 w^2.
    np.testing.assert_allclose(own["w"], 18 * params["w"] ** 4, rtol=1e-5)
    stacked = {"w": jnp.stack([params["w"], 2 * params["w"]])}
    both = jax.vmap(lambda p: saliency.grasp(lambda q: jnp.sum(tripled(q["w"])), p))(stacked)
    np.testing.assert_allclose(both["w"][1], 18 * (2 * params["w"]) ** 4, rtol=1e-5)


def test_convolutional_network_with_batch_norm():
    """H g by forward over reverse mode, an independent route through autodiff."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(use_running_average=False)(nn.Conv(4, (3, 3), (2, 2))(x))
            return nn.Dense(1)(nn.tanh(x).reshape(x.shape[0], -1))

    x = jax.random.normal(jax.random.key(0), (3, 6, 6, 2))
    variables = Net().init(jax.random.key(1), x)

    def net_loss(params):
        out, _ = Net().apply({**variables, "params": params}, x, mutable="batch_stats")
        return jnp.mean(nn.softplus(-out))

    @jax.jit
    def both(params):
        g = jax.grad(net_loss)(params)
        _, hg = jax.jvp(jax.grad(net_loss), (params,), (g,))
        return saliency.grasp(net_loss, params), jax.tree.map(jnp.multiply, params, hg)

    ours, expected = map(flatten, both(variables["params"]))
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
