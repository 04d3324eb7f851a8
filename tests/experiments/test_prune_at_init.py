"""The arms `snip` and `grasp`: which weights they keep, and that they start where the dense network starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax import pruning
from lotto_jax.data import sources
from lotto_jax.experiments import build, prune_at_init
from lotto_jax.experiments.report import write
from lotto_jax.experiments.run import run
from lotto_jax.objectives.state import Batch
from lotto_jax.runs.curves import read as read_log
from lotto_jax.runs.results import read as read_results
from lotto_jax.training import loop
from tests import tiny
from tests.experiments.test_generative import gan


def stacked(config, batches=1):
    """The objective, two initial tickets with full masks, and some batches of each."""
    objective = build.objective(config, (8, 8, 1))
    states = loop.init(objective, jnp.arange(2, dtype=jnp.uint32), jnp.uint32(0))
    images = np.asarray(sources.load("digits").train.image)[: 2 * batches * 16].reshape(2, batches, 16, 8, 8, 1)
    batch = Batch(jnp.asarray(images), jnp.zeros((2, batches, 16), jnp.int32))
    return objective, states, jax.jit(jax.vmap(pruning.ones))(states.params), batch


def test_snip_keeps_the_weights_with_the_largest_product_of_value_and_gradient():
    """The gradient is read off a plain SGD step, which shares no code with the scores; the loss is a mean of two."""
    objective, states, mask, batch = stacked(tiny.config(optimizer={"name": "sgd", "learning_rate": 1.0}), batches=2)
    found = prune_at_init.find(objective, "snip", states, mask, batch, jnp.array([0.25, 0.7]))
    step = jax.jit(objective.step)
    for ticket, sparsity in enumerate((0.25, 0.7)):
        own = jax.tree.map(lambda x, ticket=ticket: x[ticket], (states, mask, batch))
        gradients = [
            jax.tree.map(
                jnp.subtract, own[0].params, step(own[0], own[1], Batch(*(x[i] for x in own[2])), key)[0].params
            )
            for i, key in enumerate(jax.random.split(jax.random.key(9), 2))
        ]
        kernels = [x for x in jax.tree.leaves(jax.tree.map(lambda x, *g: abs(x * sum(g)), own[0].params, *gradients))]
        scores = np.concatenate([np.ravel(x) for x in kernels if x.ndim > 1])
        kept = np.concatenate([np.ravel(m[ticket]) for m in jax.tree.leaves(found) if m.ndim > 1])
        assert (~kept).sum() == round(sparsity * kept.size)
        assert scores[~kept].max() <= scores[kept].min() * (1 + 1e-4)  # the step rounds its updates to float32


@pytest.mark.parametrize("arm", prune_at_init.SCORERS)
def test_the_networks_of_a_gan_are_each_pruned_to_the_sparsity_and_scored_by_their_own_loss(arm):
    objective, states, mask, batch = stacked(gan())
    found = prune_at_init.find(objective, arm, states, mask, batch, jnp.array([0.5, 0.5]))
    for component in objective.components:
        for ticket in range(2):
            own = jax.tree.map(lambda m, ticket=ticket: m[ticket], found[component])
            assert int(pruning.num_kept(own)) == pruning.num_prunable(own) - round(0.5 * pruning.num_prunable(own))
    only = jax.jit(jax.vmap(lambda params: pruning.ones(params, pruning.in_components("generator"))))(states.params)
    one = prune_at_init.find(objective, arm, states, only, batch, jnp.array([0.5, 0.5]))
    jax.tree.map(np.testing.assert_array_equal, one["generator"], found["generator"])
    assert all(m.ndim == 1 for m in jax.tree.leaves(one["discriminator"]))


def test_their_tickets_are_as_sparse_as_the_winning_ones_and_reported_beside_them(tmp_path):
    arms = ("winning", "snip", "grasp")
    run(tiny.config(imp__arms=arms, imp__score_batches=2), tmp_path / "run")
    results = read_results(tmp_path / "run")
    sparsity = {(r.arm, r.round, r.seed): r.sparsity for r in results if r.arm != "dense"}
    assert sparsity.keys() == {(arm, number, seed) for arm in arms for number in (1, 2) for seed in (0, 1)}
    for (_, number, seed), value in sparsity.items():
        assert value == sparsity["winning", number, seed]
    values = {r.arm: r.value for r in results if (r.round, r.seed) == (2, 0)}
    assert len(set(values.values())) == 3
    first = {arm: min(p["step"] for p in read_log(tmp_path / "run") if p["arm"] == arm) for arm in arms}
    assert first == {"winning": 4, "snip": 1, "grasp": 1}  # rewound to step 3, or from initialization
    text = write(tmp_path / "run")
    assert "snip" in text and "grasp" in text
