"""Emulated 8-bit floats: the rounding against the definition of the formats, and where it is applied."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lotto_jax.models import convolutions, float8, layers


def reference(x: np.ndarray, mantissa: int, smallest_exponent: int, largest: float) -> np.ndarray:
    """Rounded to so many bits after the leading one, subnormal below the smallest exponent, in float64."""
    top = np.abs(x).max()
    scale = np.float64(np.float32(top / np.float32(largest))) if top else 1.0
    y = x / scale
    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(y), 1e-300))), smallest_exponent)
    step = 2.0 ** (exponent - mantissa)
    return np.round(y / step) * step * scale


@settings(deadline=None)
@given(seed=st.integers(0, 1000), spread=st.floats(0.0, 6.0))
@pytest.mark.parametrize(("dtype", "format"), [("float8_e4m3fn", (3, -6, 448.0)), ("float8_e5m2", (2, -14, 57344.0))])
def test_values_are_rounded_to_the_format(dtype, format, seed, spread):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=64) * 10.0 ** rng.uniform(-spread, spread, 64)).astype(np.float32)
    x[3] = 0.0
    found = np.asarray(float8.quantize(jnp.asarray(x), jnp.dtype(dtype)))
    expected = reference(x.astype(np.float64), *format)
    # Division by a rounded scale may move a value over the middle between two neighbors.
    apart = np.abs(found - expected) > 1e-5 * np.abs(expected) + 1e-30
    assert apart.sum() <= 1 and found[3] == 0
    assert np.abs(found).max() == pytest.approx(np.abs(x).max(), rel=1e-6)


def test_inputs_kernels_and_gradients_of_layers_are_rounded_and_nothing_else():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = layers.Conv(3, (3, 3), use_bias=False, dtype=jnp.float32, name="conv")(x)
            return nn.Dense(2, use_bias=False, name="dense")(nn.relu(x).reshape(x.shape[0], -1))

    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
    params = Net().init(jax.random.key(1), x)
    kernel, head = params["params"]["conv"]["kernel"], params["params"]["dense"]["kernel"]
    e4m3 = lambda a: float8.quantize(a, jnp.float8_e4m3fn)  # noqa: E731
    hidden = nn.relu(convolutions.conv(e4m3(x), e4m3(kernel), (1, 1), "SAME")).reshape(2, -1)
    expected = e4m3(hidden) @ e4m3(head)
    apply = float8.emulated(Net().apply)
    np.testing.assert_allclose(apply(params, x), expected, rtol=1e-6)
    g = jax.random.normal(jax.random.key(2), expected.shape)
    gradient = jax.vjp(lambda p: apply(p, x), params)[1](g)[0]["params"]["dense"]["kernel"]
    np.testing.assert_allclose(gradient, e4m3(hidden).T @ float8.quantize(g, jnp.float8_e5m2), rtol=1e-5, atol=1e-6)
    plain = nn.relu(convolutions.conv(x, kernel, (1, 1), "SAME")).reshape(2, -1) @ head
    np.testing.assert_allclose(Net().apply(params, x), plain, rtol=1e-5)  # outside of `apply` nothing is rounded
    assert not np.allclose(plain, expected, rtol=1e-3)


def test_pruned_weights_stay_pruned_and_second_derivatives_exist():
    assert not np.any(float8.quantize(jnp.zeros(5), jnp.float8_e5m2))
    layer = layers.Conv(2, (3, 3), dtype=jnp.float32)
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 1))
    params = layer.init(jax.random.key(1), x)
    apply = float8.emulated(layer.apply)
    norm = lambda p: jnp.sum(jnp.square(jax.grad(lambda x: jnp.sum(apply(p, x) ** 2))(x)))  # noqa: E731
    assert np.isfinite(jax.grad(norm)(params)["params"]["kernel"]).all()
