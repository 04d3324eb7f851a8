"""Every network can be chosen by name, with fields that are its own."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax.experiments import build
from lotto_jax.objectives.state import Batch
from lotto_jax.pruning import masks
from tests import tiny

CIFAR = (32, 32, 3)
OWN = "tests.experiments.own"


@pytest.mark.parametrize("name", build.NETWORKS)
def test_a_network_is_built_by_name_for_the_images_at_hand(name):
    width = {} if name == "linear_autoencoder" else {"width": 8}
    config = tiny.config(model={"name": name, **width}, objective={"name": build.NETWORKS[name].objective})
    objective = build.objective(config, CIFAR, 10)
    state = jax.eval_shape(objective.init, jax.random.key(0))
    assert set(state.params) == set(objective.components)
    assert sum(leaf.ndim >= 2 for leaf in jax.tree.leaves(state.params)) >= 2
    kept = jax.eval_shape(masks.ones, state.params)
    assert jax.tree.structure(kept) == jax.tree.structure(state.params)


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_training_multiplies_as_configured_and_measuring_in_full(precision):
    objective = build.objective(tiny.config(matmul_precision=precision), (8, 8, 1))
    state = jax.eval_shape(objective.init, jax.random.key(0))
    mask, key = jax.eval_shape(masks.ones, state.params), jax.random.key(0)
    batch = Batch(jnp.zeros((2, 8, 8, 1), jnp.uint8), jnp.zeros(2, jnp.int32))
    measured = state.params, state.model_state, batch, key
    chosen, highest = (jax.lax.Precision(name) for name in (precision, "highest"))
    for function, arguments, expected in (
        (objective.step, (state, mask, batch, key), chosen),
        (objective.losses[0].value, measured, chosen),
        (objective.evaluate, measured, highest),
        (objective.reconstruct, measured, highest),
    ):
        jaxpr = jax.make_jaxpr(lambda *inputs, f=function: f(*inputs))(*arguments).jaxpr
        found = {e.params["precision"] for e in jaxpr.eqns if e.primitive.name == "dot_general"}
        assert found == {(expected, expected)}, function


def test_a_critic_without_batch_norm_takes_a_gradient_penalty():
    chosen = tiny.config(
        model={"name": "sngan", "width": 8},
        objective={"name": "adversarial", "latent": 3, "gradient_penalty_weight": 10.0},
    )
    assert build.objective(chosen, CIFAR).components == ("generator", "discriminator")


def test_a_cosine_schedule_falls_from_the_learning_rate_to_zero_at_the_last_step():
    fields = {"optimizer": {"name": "sgd", "learning_rate": 0.1}}
    constant = build.objective(tiny.config(**fields), (8, 8, 1), steps=4)
    cosine = build.objective(tiny.config(**fields, train__schedule="cosine"), (8, 8, 1), steps=4)
    state = cosine.init(jax.random.key(0))
    kept, key = masks.ones(state.params), jax.random.key(1)
    batch = Batch(jnp.arange(128, dtype=jnp.uint8).reshape(2, 8, 8, 1), jnp.zeros(2, jnp.int32))
    step, reference = jax.jit(cosine.step), jax.jit(constant.step)
    fixed = constant.init(jax.random.key(0)).opt_state
    moved = lambda new, old: jax.tree.map(lambda x, y: x - y, new.params, old.params)  # noqa: E731
    for t in range(4):
        new, full = step(state, kept, batch, key)[0], reference(state._replace(opt_state=fixed), kept, batch, key)[0]
        share = (1 + math.cos(math.pi * t / 4)) / 2
        jax.tree.map(
            lambda x, y, share=share: np.testing.assert_allclose(x, share * y, rtol=1e-3, atol=1e-7),
            moved(new, state),
            moved(full, state),
        )
        state = new


def test_a_network_of_ones_own_may_have_fields_of_any_kind():
    config = tiny.config(model={"name": f"{OWN}:Deep", "widths": (6, 4), "nonlinearity": "tanh"})
    state = jax.eval_shape(build.objective(config, (8, 8, 1)).init, jax.random.key(0))
    assert state.params["encoder_1"]["kernel"].shape == (6, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model": {"name": "vae"}, "objective": {"name": "reconstruction"}},
            "config.objective.name is 'reconstruction', but vae is trained by 'elbo'",
        ),
        (
            {"model": {"name": "dcgan", "depth": 2}, "objective": {"name": "adversarial"}},
            "config.model.depth is not a field of 'dcgan'; it takes",
        ),
        (
            {
                "model": {"name": "dcgan", "width": 4},
                "objective": {"name": "adversarial", "latent": 3, "gradient_penalty_weight": 10.0},
            },
            "needs each image judged by itself; set config.model.batch_norm to False",
        ),
        (
            {"objective": {"name": "diffusion"}},
            "config.objective.name is 'diffusion', but linear_autoencoder is",
        ),
        ({"objective": {"name": "reconstruction", "beta": 2.0}}, "it takes loss"),
        (
            {"model": {"name": "linear_autoencoder", "output": "tanh"}},
            "model.output is 'tanh'; it takes none or sigmoid",
        ),
        (
            {"model": {"name": "linear_autoencoder", "output": "sigmoid"}, "objective": {"loss": "bce"}},
            "loss is 'bce', which takes logits; set config.model.output to 'none'",
        ),
        ({"model": {"name": f"{OWN}:scale"}, "precision": "bfloat16"}, "has no parameter dtype for it; add one"),
        ({"model": {"name": f"{OWN}:scale"}, "objective": {"bta": 1}}, "config.objective.bta is not a field of"),
        ({"model": {"name": f"{OWN}:tenth_of_the_encoder"}}, "config.model.params is missing"),
        ({"model": {"name": f"{OWN}:no_objective"}}, "returns a dict; it has to return a lotto_jax.objectives"),
        ({"model": {"name": f"{OWN}:Deep", "widths": (16, 32), "rate": "high"}}, "rate is 'high'; it takes a number"),
    ],
)
def test_a_choice_that_does_not_fit_is_one_sentence(fields, message):
    with pytest.raises(ValueError, match=message):
        build.objective(tiny.config(**fields), CIFAR)
