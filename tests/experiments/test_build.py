"""Every network can be chosen by name, with fields that are its own."""

import jax
import pytest

from lotto_jax.experiments import build
from lotto_jax.pruning import masks
from tests import tiny

CIFAR = (32, 32, 3)


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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": {"name": "vae"}}, "config.objective.name is 'reconstruction', but vae is trained by 'elbo'"),
        (
            {"model": {"name": "dcgan", "depth": 2}, "objective": {"name": "adversarial"}},
            "config.model.depth is not a field of 'dcgan'; it takes",
        ),
        ({"objective": {"name": "diffusion"}}, "takes one of adversarial, classification, elbo, reconstruction"),
        ({"objective": {"name": "reconstruction", "beta": 2.0}}, "it takes loss"),
    ],
)
def test_a_choice_that_does_not_fit_is_one_sentence(fields, message):
    with pytest.raises(ValueError, match=message):
        build.objective(tiny.config(**fields), CIFAR)
