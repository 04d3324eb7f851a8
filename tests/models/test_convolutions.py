"""The CPU form of convolutions equals the plain one, derivatives included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax.models import convolutions

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
    return lambda x, w, strides, padding, lowering: convolutions.resampling_conv(x, w, resample, lowering)


ALL = [pytest.param(convolutions.conv, *c, id=f"conv {n}") for n, c in CASES.items()] + [
    pytest.param(convolutions.conv_transpose, *c, id=f"transposed {n}") for n, c in TRANSPOSED.items()
]
ALL += [pytest.param(resampling(r), *c, (1, 1), "SAME", id=n) for n, (r, *c) in RESAMPLING.items()]


def operands(size, inputs, outputs, kernel, batch=3, leading=()):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (*leading, batch, *size, inputs))
    return x, jax.random.normal(keys[1], (*leading, *kernel, inputs, outputs)) / np.sqrt(inputs * np.prod(kernel))


def assert_close(actual, expected):
    """Equal to 1e-5 of the largest entry, leaf by leaf."""
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-5 * np.max(np.abs(e)))


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
@pytest.mark.parametrize("function", [convolutions.conv, convolutions.conv_transpose])
def test_ticket_axis_on_input_and_kernel(function, name):
    size, inputs, outputs, kernel, strides, _ = CASES[name]
    x, w = operands(size, inputs, outputs, kernel, leading=(2,))

    def loss(x, w):
        return jnp.mean(jnp.sin(function(x, w, strides, "SAME", "cpu")))

    grad = jax.grad(loss, (0, 1))
    second = jax.grad(lambda x, w: sum(jnp.sum(jnp.sin(g)) for g in grad(x, w)), (0, 1))
    for f in map(jax.jit, (grad, second)):
        alone = jax.device_get((f(x[0], w[0]), f(x[1], w[1])))
        assert_close(jax.jit(jax.vmap(f))(x, w), [np.stack(p) for p in zip(*alone, strict=True)])


@pytest.mark.parametrize(("side", "batch", "size", "stride"), [(16, 32, 3, 1), (15, 27, 3, 1), (16, 32, 4, 2)])
def test_kernel_gradient_over_slices_of_the_batch(side, batch, size, stride):
    """Two slices of 16 images with 16 tiles each, or three of 9 with 225 positions each."""
    x, w = operands((side, side), 17, 18, (size, size), batch=batch)

    def gradient(lowering):
        return jax.grad(lambda w: jnp.sum(jnp.sin(convolutions.conv(x, w, (stride, stride), "SAME", lowering))))(w)

    assert "scan" in str(jax.make_jaxpr(lambda: gradient("cpu"))())
    assert_close(*(jax.jit(gradient, static_argnums=0)(form) for form in ("cpu", "plain")))


def test_bad_arguments_are_clear_errors():
    x, w = operands((8, 7), 3, 4, (3, 3))
    with pytest.raises(ValueError, match="lowering is 'gpu'"):
        convolutions.conv(x, w, (1, 1), "SAME", "gpu")
    with pytest.raises(ValueError, match="needs images of even height and width, not 8x7"):
        convolutions.resampling_conv(x, w, "halve", "plain")
