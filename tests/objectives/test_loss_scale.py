"""Dynamic loss scaling against the plain optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lotto_jax.experiments import build
from lotto_jax.objectives import loss_scale
from lotto_jax.objectives.state import Batch
from lotto_jax.pruning import masks
from tests import tiny

PARAMS = {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)}
GRADS = jax.tree.map(lambda x: 0.1 * x + 1, PARAMS)


def same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a, b)


def test_other_precisions_keep_their_optimizer():
    adam = optax.adam(1e-3)
    assert loss_scale.for_dtype(adam, jnp.float32) is adam and loss_scale.for_dtype(adam, jnp.bfloat16) is adam


def test_scaled_gradients_give_the_plain_updates_and_overflowing_ones_none(monkeypatch):
    monkeypatch.setattr(loss_scale, "INTERVAL", 2)
    plain, scaled = optax.adam(0.1), loss_scale.for_dtype(optax.adam(0.1), jnp.float16)
    inner, state = plain.init(PARAMS), scaled.init(PARAMS)
    scales = []
    for overflow in (False, True, False, False, True):
        scales.append(float(state.scale))
        grads = jax.tree.map(lambda g, s=state.scale: g * s, GRADS)
        if overflow:
            grads["bias"] = grads["bias"].at[1].set(jnp.inf)
        before = state
        updates, state = scaled.update(grads, state, PARAMS)
        if overflow:
            same(updates, jax.tree.map(jnp.zeros_like, PARAMS))
            same(state.inner, before.inner)
        else:
            expected, inner = plain.update(GRADS, inner, PARAMS)
            same(updates, expected)
    assert scales == [2.0**15, 2.0**15, 2.0**14, 2.0**14, 2.0**15]  # doubled after two finite updates in a row


def test_the_value_is_not_scaled_but_the_gradient_is():
    state = loss_scale.LossScaleState(None, jnp.float32(8.0), jnp.int32(0))
    loss = lambda x: (jnp.sum(x**2), "aux")  # noqa: E731
    (value, aux), gradient = loss_scale.value_and_grad(loss, state)(jnp.array([1.0, 3.0]))
    assert (float(value), aux) == (10.0, "aux") and gradient.tolist() == [16.0, 48.0]
    assert loss_scale.value_and_grad(loss, None)(jnp.array([1.0, 3.0]))[1].tolist() == [2.0, 6.0]


def test_a_carried_state_keeps_its_moments_and_gets_a_scale_or_loses_it():
    plain, scaled = optax.adam(0.1), loss_scale.for_dtype(optax.adam(0.1), jnp.float16)
    _, trained = plain.update(GRADS, plain.init(PARAMS), PARAMS)
    old, fresh = {"net": trained}, {"net": scaled.init(PARAMS)}
    wrapped = loss_scale.carried_over(old, fresh)
    assert jax.tree.structure(wrapped) == jax.tree.structure(fresh)
    same(wrapped["net"].inner, trained)
    assert wrapped["net"].scale == loss_scale.INITIAL
    same(loss_scale.carried_over(wrapped, {"net": plain.init(PARAMS)}), old)


def test_gradients_too_small_for_float16_are_lost_without_the_scale():
    def loss(params):
        return 5e-9 * jnp.sum(params.astype(jnp.float16).astype(jnp.float32) ** 2), None

    params, plain = jnp.array([0.5, -2.0]), optax.sgd(1.0)
    state = loss_scale.for_dtype(plain, jnp.float16).init(params)
    (_, _), lost = loss_scale.value_and_grad(loss, plain.init(params))(params)
    (_, _), scaled = loss_scale.value_and_grad(loss, state)(params)
    assert not np.any(lost)
    np.testing.assert_allclose(scaled / state.scale, 1e-8 * params, rtol=1e-3)


@pytest.mark.parametrize("precision", ["float16", "float8"])
def test_a_step_in_few_bits_is_near_that_in_float32_with_float32_params(precision):
    image = jnp.asarray(np.random.default_rng(0).integers(0, 2, (16, 8, 8, 1)), jnp.uint8)
    moved = {}
    for name in ("float32", precision):
        config = tiny.config(optimizer={"name": "sgd", "learning_rate": 1.0}, precision=name)
        objective = build.objective(config, (8, 8, 1))
        state = objective.init(jax.random.key(0))
        batch, key = Batch(image, jnp.zeros(16, jnp.int32)), jax.random.key(1)
        new, metrics = jax.jit(objective.step)(state, masks.ones(state.params), batch, key)
        assert {x.dtype for x in jax.tree.leaves(new.params)} == {jnp.dtype("float32")}
        change = jax.tree.map(jnp.subtract, new.params, state.params)
        moved[name] = np.concatenate([np.ravel(x) for x in jax.tree.leaves(change)])
        moved[name, "loss"] = float(metrics["loss"])
    error = np.linalg.norm(moved[precision] - moved["float32"]) / np.linalg.norm(moved["float32"])
    assert 0 < error < {"float16": 0.01, "float8": 0.1}[precision]
    assert moved[precision, "loss"] == pytest.approx(moved["float32", "loss"], rel=0.02)
