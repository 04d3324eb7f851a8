"""The CPU form of convolutions equals the plain one, and both layers equal Flax's."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax.models import layers

# (height, width), input and output channels, kernel, strides, padding: each reaches another branch.
SAME = "SAME"
CASES = {
    "3x3": ((8, 8), 5, 7, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "3x3 few positions": ((4, 4), 5, 7, (3, 3), (1, 1), SAME),
    "3x3 few inputs": ((8, 6), 3, 20, (3, 3), (1, 1), SAME),
    "3x3 few outputs": ((6, 8), 20, 3, (3, 3), (1, 1), SAME),
    "3x3 cropping": ((9, 8), 4, 5, (3, 3), (1, 1), ((-1, 2), (0, 3))),
    "3x3/2": ((9, 10), 4, 5, (3, 3), (2, 2), SAME),
    "3x3 in tiles": ((8, 12), 17, 18, (3, 3), (1, 1), SAME),
    "3x3 in tiles, cropping": ((11, 6), 17, 18, (3, 3), (1, 1), ((-1, 0), (2, 2))),
    "3x3 many channels": ((7, 7), 18, 17, (3, 3), (1, 1), "VALID"),
    "4x4/2": ((12, 16), 4, 5, (4, 4), (2, 2), ((1, 1), (1, 1))),
    "4x4/2 few positions": ((4, 4), 4, 5, (4, 4), (2, 2), ((1, 1), (1, 1))),
    "4x4/2 many channels": ((12, 12), 17, 18, (4, 4), (2, 2), SAME),
    "4x2/2,1": ((9, 6), 4, 5, (4, 2), (2, 1), "VALID"),
    "3x3 one tile": ((4, 4), 17, 18, (3, 3), (1, 1), SAME),
    "4x4/2 in tiles": ((8, 16), 17, 18, (4, 4), (2, 2), SAME),
    "4x4/2 in tiles, cropping": ((11, 11), 17, 18, (4, 4), (2, 2), ((0, 0), (-1, 1))),
    "4x2/2,1 many positions": ((11, 8), 4, 5, (4, 2), (2, 1), "VALID"),
    "1x1/2": ((10, 9), 4, 5, (1, 1), (2, 2), SAME),
    "1x1": ((5, 7), 4, 5, (1, 1), (1, 1), "VALID"),
    "2x2/3": ((10, 10), 4, 5, (2, 2), (3, 3), SAME),
}
TRANSPOSED = {
    "4x4/2": ((6, 5), 5, 4, (4, 4), (2, 2), SAME),
    "4x4/2 few positions": ((2, 4), 5, 4, (4, 4), (2, 2), ((2, 2), (2, 2))),
    "3x3": ((6, 6), 5, 4, (3, 3), (1, 1), SAME),
    "3x3/2": ((6, 5), 5, 4, (3, 3), (2, 2), SAME),
    "3x3/2 valid": ((6, 5), 5, 4, (3, 3), (2, 2), "VALID"),
    "4x4/2 wide padding": ((6, 6), 18, 4, (4, 4), (2, 2), ((4, 3), (2, 2))),
    "2x2/3": ((5, 5), 4, 5, (2, 2), (3, 3), "VALID"),
}
RESAMPLING = {
    "double 3x3": ("double", (6, 5), 5, 4, (3, 3)),
    "double 3x3 in tiles": ("double", (4, 8), 17, 18, (3, 3)),
    "double 2x4": ("double", (6, 5), 5, 4, (2, 4)),
    "double 3x3 few positions": ("double", (4, 3), 5, 4, (3, 3)),
    "halve 3x3": ("halve", (10, 12), 5, 4, (3, 3)),
    "halve 3x3 few outputs": ("halve", (6, 4), 18, 20, (3, 3)),
    "halve 3x3 in tiles": ("halve", (16, 8), 17, 18, (3, 3)),
    "halve 4x1": ("halve", (10, 12), 5, 4, (4, 1)),
}


def resampling(resample):
    """The convolution of `Conv.resample`, which in plain form is a convolution and a repetition or a mean."""
    return lambda x, w, strides, padding, lowering: layers._resampling_conv(x, w, resample, lowering)


ALL = [pytest.param(layers.conv, *c, id=f"conv {n}") for n, c in CASES.items()] + [
    pytest.param(layers.conv_transpose, *c, id=f"transposed {n}") for n, c in TRANSPOSED.items()
]
ALL += [pytest.param(resampling(r), *c, (1, 1), "SAME", id=n) for n, (r, *c) in RESAMPLING.items()]


def operands(size, inputs, outputs, kernel, batch=3, leading=()):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (*leading, batch, *size, inputs))
    return x, jax.random.normal(keys[1], (*leading, *kernel, inputs, outputs)) / np.sqrt(inputs * np.prod(kernel))


def assert_close(actual, expected):
    """Equal to 1e-5 of the largest entry, leaf by leaf."""
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-5 * float(jnp.max(jnp.abs(e))))


@pytest.mark.parametrize(("function", "size", "inputs", "outputs", "kernel", "strides", "padding"), ALL)
def test_cpu_form_equals_plain_form_with_first_and_second_derivatives(
    function, size, inputs, outputs, kernel, strides, padding
):
    x, w = operands(size, inputs, outputs, kernel)

    def value_and_derivatives(lowering):
        def call(x, w):
            return function(x, w, strides, padding, lowering)

        def loss(x, w):
            return jnp.mean(jnp.sin(call(x, w)) ** 2)

        def penalty(x, w):  # second derivatives, as in a gradient penalty
            dx, dw = jax.grad(loss, (0, 1))(x, w)
            return jnp.sum(jnp.sqrt(1e-6 + jnp.sum(dx**2, (1, 2, 3)))) + jnp.sum(jnp.sin(dw))

        hessian_product = jax.jvp(jax.grad(loss, (0, 1)), (x, w), (jnp.cos(x), jnp.cos(w)))[1]  # as in GraSP
        return call(x, w), jax.grad(loss, (0, 1))(x, w), jax.grad(penalty, (0, 1))(x, w), hessian_product

    assert_close(*(jax.jit(value_and_derivatives, static_argnums=0)(form) for form in ("cpu", "plain")))


@pytest.mark.parametrize("name", ["3x3", "4x4/2", "3x3 few outputs", "3x3 in tiles", "4x4/2 in tiles"])
@pytest.mark.parametrize("function", [layers.conv, layers.conv_transpose])
def test_ticket_axis_on_input_and_kernel(function, name):
    size, inputs, outputs, kernel, strides, _ = CASES[name]
    x, w = operands(size, inputs, outputs, kernel, leading=(2,))

    def loss(x, w):
        return jnp.mean(jnp.sin(function(x, w, strides, "SAME", "cpu")))

    grad = jax.grad(loss, (0, 1))
    second = jax.grad(lambda x, w: sum(jnp.sum(jnp.sin(g)) for g in grad(x, w)), (0, 1))
    for f in (grad, second):
        assert_close(jax.jit(jax.vmap(f))(x, w), [jnp.stack(p) for p in zip(f(x[0], w[0]), f(x[1], w[1]), strict=True)])


@pytest.mark.parametrize(("side", "batch", "size", "stride"), [(16, 32, 3, 1), (15, 27, 3, 1), (16, 32, 4, 2)])
def test_kernel_gradient_over_slices_of_the_batch(side, batch, size, stride):
    """Two slices of 16 images with 16 tiles each, or three of 9 with 225 positions each."""
    x, w = operands((side, side), 17, 18, (size, size), batch=batch)

    def gradient(lowering):
        return jax.grad(lambda w: jnp.sum(jnp.sin(layers.conv(x, w, (stride, stride), "SAME", lowering))))(w)

    assert "scan" in str(jax.make_jaxpr(lambda: gradient("cpu"))())
    assert_close(gradient("cpu"), gradient("plain"))


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


def test_unknown_fields_are_clear_errors():
    x, w = operands((8, 8), 3, 4, (3, 3))
    with pytest.raises(ValueError, match="lowering is 'gpu'"):
        layers.conv(x, w, (1, 1), "SAME", "gpu")
    with pytest.raises(ValueError, match="padding is 'CIRCULAR'"):
        layers.Conv(4, 3, padding="CIRCULAR").init(jax.random.key(0), x)
    for fields in ({"resample": "up"}, {"resample": "double", "strides": 2}, {"resample": "halve", "padding": "VALID"}):
        with pytest.raises(ValueError, match="use 'double' or 'halve', with strides 1 and padding 'SAME'"):
            layers.Conv(4, 3, **fields).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="needs images of even height and width, not 8x7"):
        layers.Conv(4, 3, resample="halve").init(jax.random.key(0), x[:, :, :7])
