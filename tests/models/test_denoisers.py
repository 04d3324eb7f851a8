"""Denoising networks: published sizes, what they start from, compaction, and images that they can't take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax import pruning
from lotto_jax.models import compacted, dit, layers, mlp, time_embedding, unet

SMALL = {
    "unet": unet.UNet(8, (1, 2), 1, (), groups=4, image_size=8, channels=1),
    "dit": dit.DiT(16, 1, 4, image_size=8, channels=1),
}
X = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
TIME = jnp.array([0.2, 0.7])


def shapes(model):
    x = jnp.zeros((1, model.image_size, model.image_size, model.channels))
    return jax.eval_shape(lambda key: model.init(key, x, jnp.zeros(1), train=False), jax.random.key(0))


def count(model):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(model)["params"]))


def test_the_unet_of_cifar10_is_that_of_ho_et_al():
    assert count(unet.UNet()) == 35_746_307


@pytest.mark.parametrize(("width", "heads", "millions"), [(384, 6, 33), (768, 12, 130)])
def test_a_dit_without_what_classes_and_variances_need_is_that_of_peebles_and_xie(width, heads, millions):
    """Theirs (table 1) embeds 1,001 classes and predicts variances, on latents of 32x32x4; positions count there."""
    model = dit.DiT(width, 12, heads, image_size=32, channels=4)
    classes, variances, positions = 1001 * width, (width + 1) * 2 * 2 * 4, 16**2 * width
    assert (count(model) + classes + variances + positions) / 1e6 == pytest.approx(millions, rel=0.005)


def filled(model):
    """Variables at which every layer counts, of the shapes that `init` gives."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(0, 0.3, a.shape) + (a.ndim < 2), jnp.float32), shapes(model))


def test_a_dit_starts_by_saying_zero_and_then_sees_the_time():
    model = SMALL["dit"]
    apply = jax.jit(lambda v, time: model.apply(v, X, time, train=False))
    start = model.init(jax.random.key(0), X, TIME, train=False)
    np.testing.assert_array_equal(apply(start, TIME), jnp.zeros_like(X))
    a, b = apply(filled(model), TIME), apply(filled(model), TIME[::-1])
    assert np.all(np.max(np.abs(a - b), axis=(1, 2, 3)) > 1e-3)


@pytest.mark.parametrize("name", SMALL)
def test_half_of_the_channels_heads_and_norm_groups_go_and_the_outputs_stay(name):
    model = SMALL[name]
    variables = filled(model)
    function = lambda v, x, time: model.apply(v, x, time, train=False)  # noqa: E731
    with layers.plain_lowering():  # which compiles faster
        groups = pruning.axis_groups(function, variables, X, TIME)
        mask = pruning.channel_mask(pruning.channel_scores(groups, variables, pool="group"), 0.5)
        small = pruning.compact(function, variables, mask, X, TIME)
        expected = jax.jit(function)(pruning.mask_channels(groups, variables, mask), X, TIME)
        found = jax.jit(compacted.following(function))(small.variables, X, TIME)
    assert not small.left
    weights = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    assert weights(small.variables) < 0.6 * weights(variables)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * float(jnp.abs(expected).max()))


def test_the_embedding_of_the_time_is_that_of_ho_et_al():
    found = time_embedding.sinusoidal(jnp.array([0.0, 0.001, 0.5]), 8)
    frequencies = 10_000.0 ** (-np.arange(4) / 3)
    angle = np.array([0, 1, 500])[:, None] * frequencies
    np.testing.assert_allclose(found, np.concatenate([np.sin(angle), np.cos(angle)], 1), atol=1e-4)


def test_positions_of_a_grid_differ_along_both_axes():
    """Rows share the second half of the features, columns the first; each number is a sine or cosine of its place."""
    found = dit.positions(3, 8).reshape(3, 3, 8)
    np.testing.assert_allclose(found[0, :, :4], found[2, :, :4])
    np.testing.assert_allclose(found[:, 0, 4:], found[:, 2, 4:])
    np.testing.assert_allclose(
        found[1, 2], np.r_[np.sin([2, 0.02]), np.cos([2, 0.02]), np.sin([1, 0.01]), np.cos([1, 0.01])]
    )


def test_what_networks_cannot_take_is_a_clear_error():
    wrong = lambda model, x: jax.eval_shape(lambda: model.init(jax.random.key(0), x, TIME, train=False))  # noqa: E731
    for model in SMALL.values():
        with pytest.raises(ValueError, match=r"made for images of \[batch, 8, 8, 1\] and got \[2, 8, 8, 3\]"):
            wrong(model, jnp.zeros((2, 8, 8, 3)))
    with pytest.raises(ValueError, match="image_size is 10, which 3 multipliers halve 2 times"):
        wrong(unet.UNet(8, (1, 1, 1), image_size=10), jnp.zeros((2, 10, 10, 3)))
    with pytest.raises(ValueError, match="width is 30 and heads 4"):
        wrong(dit.DiT(30), jnp.zeros((2, 32, 32, 3)))
    with pytest.raises(ValueError, match="image_size is 9, which patches of 2 do not divide"):
        wrong(dit.DiT(image_size=9), jnp.zeros((2, 9, 9, 3)))


def test_the_perceptron_sees_the_time():
    model, x = mlp.MLP(8, 2), jnp.ones((2, 1, 1, 2))
    variables = model.init(jax.random.key(0), x, TIME, train=False)
    found = model.apply(variables, x, TIME, train=False)
    assert found.shape == x.shape and float(jnp.abs(found[0] - found[1]).max()) > 1e-4
