"""Our layers equal Flax's in every form, and say what they can't do."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax.models import layers, platforms


def assert_close(actual, expected):
    """Equal to 1e-5 of the largest entry, leaf by leaf."""
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-5 * float(jnp.max(jnp.abs(e))))


@pytest.mark.parametrize(("ours", "flax"), [(layers.Conv, nn.Conv), (layers.ConvTranspose, nn.ConvTranspose)])
@pytest.mark.parametrize("padding", ["SAME", "VALID", 1, ((2, 2), (1, 2))])
@pytest.mark.parametrize("use_bias", [True, False])
def test_layers_are_flax_layers(ours, flax, padding, use_bias):
    x = jax.random.normal(jax.random.key(1), (2, 10, 10, 3))
    fields = dict(features=6, kernel_size=(4, 4), strides=(2, 2), padding=padding, use_bias=use_bias)
    theirs = flax(**fields)
    variables = theirs.init(jax.random.key(2), x)
    ours_variables = ours(**fields).init(jax.random.key(2), x)
    jax.tree.map(np.testing.assert_array_equal, ours_variables, variables)
    expected = theirs.apply(variables, x)
    for lowering in ("auto", "cpu", "plain"):
        assert_close(ours(**fields).apply(variables, x, lowering=lowering), expected)


@pytest.mark.parametrize("resample", ["double", "halve"])
def test_resampling_layer_is_a_convolution_and_a_repetition_or_a_mean(resample):
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    layer = layers.Conv(4, 3, resample=resample, bias_init=nn.initializers.ones)
    variables = layer.init(jax.random.key(2), x)
    inputs = x.repeat(2, 1).repeat(2, 2) if resample == "double" else x
    expected = nn.Conv(4, (3, 3)).apply(variables, inputs)
    expected = nn.avg_pool(expected, (2, 2), (2, 2)) if resample == "halve" else expected
    for lowering in ("cpu", "plain"):
        assert_close(layer.apply(variables, x, lowering=lowering), expected)
        coarse = layer.clone(dtype=jnp.bfloat16).apply(variables, x, lowering=lowering)
        np.testing.assert_allclose(coarse.astype(jnp.float32), expected, atol=0.05)


def test_bfloat16_compute_keeps_float32_params_and_gradients():
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    layer = layers.Conv(4, (3, 3), dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(2), x)
    y, pullback = jax.vjp(lambda v: layer.apply(v, x), variables)
    (grads,) = pullback(y)
    assert y.dtype == jnp.bfloat16
    assert {a.dtype for a in jax.tree.leaves((variables, grads))} == {jnp.dtype("float32")}
    expected = layers.Conv(4, (3, 3)).apply(variables, x)
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=0.05)


def primitives(jaxpr):
    return {equation.primitive.name for equation in jaxpr.eqns}


def test_plain_lowering_traces_single_convolutions_and_allows_forward_mode():
    model = nn.Sequential([layers.Conv(4, 3), layers.ConvTranspose(3, 4, strides=2)])
    x = jnp.ones((1, 8, 8, 3))
    variables = model.init(jax.random.key(0), x)
    call = functools.partial(model.apply, variables)
    with layers.plain_lowering():
        jaxpr = jax.make_jaxpr(call)(x)
        jax.jvp(call, (x,), (x,))
    assert "conv_general_dilated" in primitives(jaxpr.jaxpr)
    assert not any("custom_vjp" in name for name in primitives(jaxpr.jaxpr))


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_layers_take_the_form_of_the_platform_that_is_compiled_for(platform):
    """Whatever the devices here are: a gradient's forms differ, a layer's own CPU form has a custom derivative."""
    layer, x = layers.Conv(4, 3), jnp.ones((1, 8, 8, 3))
    variables = layer.init(jax.random.key(0), x)
    with platforms.compiling_for(platform):
        jaxpr = str(jax.make_jaxpr(lambda v: layer.apply(v, x))(variables))
    assert ("custom_vjp_call" in jaxpr) == (platform == "cpu")
    assert platforms.current() == jax.default_backend()


def test_unknown_fields_are_clear_errors():
    x = jnp.ones((3, 8, 8, 3))
    with pytest.raises(ValueError, match="padding is 'CIRCULAR'"):
        layers.Conv(4, 3, padding="CIRCULAR").init(jax.random.key(0), x)
    for fields in ({"resample": "up"}, {"resample": "double", "strides": 2}, {"resample": "halve", "padding": "VALID"}):
        with pytest.raises(ValueError, match="use 'double' or 'halve', with strides 1 and padding 'SAME'"):
            layers.Conv(4, 3, **fields).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="needs images of even height and width, not 8x7"):
        layers.Conv(4, 3, resample="halve").init(jax.random.key(0), x[:, :, :7])
