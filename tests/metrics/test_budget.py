import jax
import numpy as np
import pytest

from lotto_jax import pruning
from lotto_jax.metrics import flops
from lotto_jax.metrics.budget import compact_to
from tests.pruning.structures import STRUCTURES


def params_of(tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(("name", "budget"), [("stacked", {"flops": 0.6}), ("transformer", {"params": 0.4})])
def test_one_channel_fewer_would_miss_the_budget(name, budget):
    network = STRUCTURES[name]()
    fn, variables, inputs = network.fn, network.variables, network.inputs
    scores = jax.device_get(pruning.channel_scores(pruning.axis_groups(fn, variables, *inputs), variables))
    small = compact_to(fn, variables, scores, *inputs, **budget)

    def share(small):
        if "params" in budget:
            return params_of(small.variables) / params_of(variables)
        return (
            flops.count(small.resized(fn), small.variables, *inputs).total / flops.count(fn, variables, *inputs).total
        )

    removed = sum(int((~keep).sum()) for keep in small.mask.values())
    total = sum(keep.size for keep in small.mask.values())
    before = pruning.compact(fn, variables, pruning.channel_mask(scores, (removed - 1) / total), *inputs)
    assert share(small) <= next(iter(budget.values())) < share(before)


def test_the_count_of_the_smaller_network_is_that_of_its_shapes():
    network = STRUCTURES["stacked"]()
    groups = pruning.axis_groups(network.fn, network.variables, *network.inputs)
    mask = {name: np.arange(group.size) >= 2 for name, group in groups.named.items()}
    small = pruning.compact(network.fn, network.variables, mask, *network.inputs)
    counted = flops.count(small.resized(network.fn), small.variables, *network.inputs)
    assert counted.matmul == 2 * 3 * (4 * 6 + 3 * (6 * 4 + 4 * 6) + 6 * 2)  # 8 and 6 channels became 6 and 4


def test_bad_budgets_get_one_sentence():
    network = STRUCTURES["stacked"]()
    groups = pruning.axis_groups(network.fn, network.variables, *network.inputs)
    scores = {name: np.ones(group.size, np.float32) for name, group in groups.named.items()}
    for budget, message in (
        ({}, "Give one budget"),
        ({"flops": 0.5, "params": 0.5}, "Give one budget"),
        ({"flops": 1.5}, "must lie in"),
        ({"params": 0.01}, "cannot be reached"),
    ):
        with pytest.raises(ValueError, match=message):
            compact_to(network.fn, network.variables, scores, *network.inputs, **budget)
