"""The pruning rules that `config.imp.rule` names, on stacked tickets."""

import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax import pruning
from lotto_jax.experiments import build, selections
from tests import tiny


def test_named_rules_prune_stacked_tickets_to_what_it_says():
    rng = np.random.default_rng(0)
    params = {"a": jnp.asarray(rng.normal(size=(2, 16, 8)), jnp.float32), "b": jnp.ones((2, 8))}
    mask = pruning.stack([pruning.ones({"a": params["a"][0], "b": params["b"][0]})] * 2)
    size = np.abs(np.asarray(params["a"]))
    kept = {}
    for name in ("lamp", "blocks_4x4", "output_channels", "two_of_four"):
        rule = selections.rule_of(tiny.config(imp__rule=name))
        found = selections.prune(rule, params, mask, jnp.float32(0.25))
        assert found["b"].shape == (2,)
        kept[name] = np.asarray(found["a"])
    np.testing.assert_array_equal(kept["lamp"], size > np.sort(size.reshape(2, -1))[:, [31], None])  # one leaf
    channels = size.mean(1)
    np.testing.assert_array_equal(
        kept["output_channels"], np.broadcast_to((channels > np.sort(channels)[:, [1]])[:, None], size.shape)
    )
    blocks = size.reshape(2, 4, 4, 2, 4).mean((2, 4))
    gone = blocks <= np.sort(blocks.reshape(2, -1))[:, [1], None]
    np.testing.assert_array_equal(kept["blocks_4x4"], ~gone.repeat(4, 1).repeat(4, 2))
    groups = kept["two_of_four"].reshape(2, 4, 4, 8)
    assert np.all(groups.sum(2) >= 2) and np.all(groups.sum((1, 2, 3)) == 96)


def test_rounds_that_a_rule_cannot_make_are_refused():
    config = tiny.config(imp__rule="two_of_four", imp__rounds=5)
    objective = build.objective(config, (8, 8, 1))
    with pytest.raises(ValueError, match=r"rule = 'two_of_four' always keeps 50%, .* round 5 would find .* to 4"):
        selections.check_rounds(config, objective)
