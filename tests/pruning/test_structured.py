"""Groups of any network, their scores, and the smaller network, whose outputs are those of the masked one."""

import jax
import numpy as np
import pytest

from lotto_jax.pruning import axis_groups, compact, mask_channels, path_name
from tests.pruning.structures import STRUCTURES

# By hand: the channels of each group, and one axis that it lies in, with how often.
GROUPS = {
    "group_norm_unet": {
        ("params/a/kernel", 3): (4, 2),  # whole norm groups of 2
        ("params/b/kernel", 3): (8, 1),  # instance norm: every channel is a group
        ("params/up/kernel", 3): (8, 1),
        ("params/out/kernel", 2): (4, 2),
    },
    "flax_attention": {
        ("params/layers_0/kernel", 1): (8, 1),
        ("params/layers_2/out/kernel", 0): (4, 1),  # heads
        ("params/layers_2/query/kernel", 2): (2, 1),  # entries of queries and keys
        ("params/layers_2/value/kernel", 2): (2, 1),
        ("params/layers_4/kernel", 0): (8, 1),
    },
    "transformer": {("gate", 1): (10, 1), ("ln2/scale", 0): (8, 1), ("q", 1): (2, 6)},  # 2 query heads of 3 a group
    "repeated_keys": {("o", 0): (2, 8)},
    "lstm": {("kernel", 1): (8, 4)},  # i, f, g and o
    "stacked": {("layers/w1", 1): (8, 1), ("layers/w1", 2): (6, 1)},
    "mobilenet_block": {("depth", 3): (8, 1), ("stem", 3): (4, 1), ("shuffle", 3): (3, 4)},
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_smaller_network_equals_the_masked_one(name):
    network = STRUCTURES[name]()
    groups = axis_groups(network.fn, network.variables, *network.inputs)
    assert len(groups.prunable) == len(GROUPS[name])
    for leaf, size_and_repeats in GROUPS[name].items():
        assert [g.axes[leaf].shape for g in groups.prunable if leaf in g.axes] == [size_and_repeats]

    rng = np.random.default_rng(0)
    mask = {}
    for group_name, group in groups.named.items():
        mask[group_name] = rng.permutation(np.arange(group.size) >= group.size // 2)
    small = compact(network.fn, network.variables, mask, *network.inputs)
    assert not small.left
    shapes = {path_name(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(network.variables)}
    for (leaf, axis), (size, repeats) in GROUPS[name].items():
        assert len(small.kept[leaf, axis]) <= shapes[leaf][axis] - size // 2 * repeats

    @jax.jit
    def outputs(dense, variables, *inputs):
        masked = mask_channels(groups, dense, mask)
        return network.fn(dense, *inputs), network.fn(masked, *inputs), small.resized(network.fn)(variables, *inputs)

    dense, expected, got = outputs(network.variables, small.variables, *network.inputs)
    assert np.abs(dense - expected).max() > 1e-2
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
