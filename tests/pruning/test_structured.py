"""Groups of any network, their scores, and the smaller network, whose outputs are those of the masked one."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from lotto_jax.pruning import (
    axis_groups,
    channel_mask,
    channel_scores,
    compact,
    mask_channels,
    path_name,
    propagation,
)
from tests.pruning.networks import randomize
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
    "tokens": {("token", 2): (8, 1)},
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


@pytest.mark.parametrize("name", ["group_norm_unet", "transformer", "lstm", "mobilenet_block"])
def test_groups_do_not_depend_on_the_short_way_for_matching_blocks(name, monkeypatch):
    network = STRUCTURES[name]()

    def groups():
        found = axis_groups(network.fn, network.variables, *network.inputs).groups
        return [(g.size, g.reason, {leaf: rows.tolist() for leaf, rows in g.axes.items()}) for g in found]

    short = groups()
    asked = []
    monkeypatch.setattr(propagation, "_matching", lambda values, axes: asked.append(axes))
    assert groups() == short
    assert asked


def slices_of(group, leaves):
    """All entries of each channel, gathered one by one."""
    rows = [[] for _ in range(group.size)]
    for (name, axis), indices in group.axes.items():
        for row, own in zip(rows, indices, strict=True):
            row += [np.asarray(leaves[name], np.float64).take(i, axis).reshape(-1) for i in own]
    return [np.concatenate(row) for row in rows]


def test_scores_of_groups_by_hand():
    network = STRUCTURES["group_norm_unet"]()
    groups = axis_groups(network.fn, network.variables, *network.inputs)
    leaves = {path_name(p): x for p, x in jax.tree_util.tree_leaves_with_path(network.variables)}
    gradient = randomize(network.variables["params"], 5)
    slopes = {f"params/{path_name(p)}": g for p, g in jax.tree_util.tree_leaves_with_path(gradient)}
    products = {n: np.asarray(x, np.float64) * np.asarray(slopes[n]) for n, x in leaves.items()}

    @jax.jit
    def scores(variables, gradient):
        taylor = channel_scores(groups, variables, "taylor", gradient=gradient)
        ranked = channel_scores(groups, variables, pool="group")
        return channel_scores(groups, variables), channel_scores(groups, variables, "lamp"), taylor, ranked

    magnitude, lamp, taylor, ranked = scores(network.variables, gradient)
    for name, group in groups.named.items():
        sums = np.array([np.sum(row**2) for row in slices_of(group, leaves)])
        np.testing.assert_allclose(magnitude[name], np.sqrt(sums), rtol=1e-5)
        np.testing.assert_allclose(lamp[name], [x / sums[sums >= x].sum() for x in sums], rtol=1e-5)
        np.testing.assert_allclose(taylor[name], [np.abs(r).sum() for r in slices_of(group, products)], rtol=1e-5)
        assert np.array_equal(np.argsort(ranked[name]), np.argsort(sums))
        np.testing.assert_allclose(np.sort(ranked[name]), (np.arange(group.size) + 0.5) / group.size)
    removed = {name: int((~keep).sum()) for name, keep in channel_mask(ranked, 0.5).items()}
    assert removed == {name: group.size // 2 for name, group in groups.named.items()}


def test_isomorphic_groups_compete_with_each_other_only():
    def fn(p, x):
        for name in ("a", "b", "c"):
            x = x + jnp.tanh(x @ p[name]["up"]) @ p[name]["down"]
        return x

    widths = {"a": 4, "b": 4, "c": 6}
    sizes = {"a": 1.0, "b": 10.0, "c": 100.0}
    params = {
        k: {"up": sizes[k] * jnp.arange(1.0, 3 * n + 1).reshape(3, n), "down": jnp.zeros((n, 3))}
        for k, n in widths.items()
    }
    groups = axis_groups(fn, params, jnp.zeros((2, 3)))
    scores = channel_scores(groups, params, pool="isomorphic")
    # a and b are of one shape whatever their width is, and so is c: all 14 compete.
    ranks = np.concatenate([scores[f"{k}/down[0]"] for k in "abc"])
    np.testing.assert_allclose(ranks, (np.arange(14) + 0.5) / 14, rtol=1e-6)
    wide = {**params, "c": {"up": jnp.ones((3, 6)), "down": jnp.zeros((6, 3)), "bias": jnp.ones(6)}}

    def biased(p, x):
        return jnp.tanh(fn(p, x) @ p["c"]["up"] + p["c"]["bias"][None]) @ p["c"]["down"]

    scores = channel_scores(axis_groups(biased, wide, jnp.zeros((2, 3))), wide, pool="isomorphic")
    np.testing.assert_allclose(np.sort(scores["c/bias[0]"]), (np.arange(6) + 0.5) / 6, rtol=1e-6)
    np.testing.assert_allclose(np.sort(scores["b/down[0]"]), (np.arange(4, 8) + 0.5) / 8, rtol=1e-6)


def test_random_scores_are_a_draw_of_the_key():
    network = STRUCTURES["stacked"]()
    groups = axis_groups(network.fn, network.variables, *network.inputs)
    a, b, c = (channel_scores(groups, network.variables, "random", key=jax.random.key(i)) for i in (0, 0, 1))
    for name in groups.named:
        np.testing.assert_array_equal(a[name], b[name])
        assert np.all(a[name] != c[name]) and np.all((a[name] >= 0) & (a[name] < 1))


def test_the_smaller_network_takes_other_batches_and_gradients():
    """The gradients of the smaller network are those of the masked one, where something is left."""
    network = STRUCTURES["lstm"]()
    groups = axis_groups(network.fn, network.variables, *network.inputs)
    mask = {name: np.arange(group.size) % 3 > 0 for name, group in groups.named.items()}
    small = compact(network.fn, network.variables, mask, *network.inputs)
    x = jax.random.normal(jax.random.key(9), (4, 2, 5))  # fewer steps than the function was compacted for

    def loss(fn):
        return lambda variables: jnp.mean(fn(variables, x) ** 2)

    @jax.jit
    def gradients(dense, variables):
        masked = mask_channels(groups, dense, mask)
        return jax.grad(loss(network.fn))(masked), jax.grad(small.resized(loss(network.fn)))(variables)

    expected, got = gradients(network.variables, small.variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), small.shrink(expected), got)


@pytest.mark.parametrize("name", ["group_norm_unet", "flax_attention"])
def test_the_smaller_network_is_exported_with_an_open_batch_axis(name):
    network = STRUCTURES[name]()
    x, *others = network.inputs
    assert not others
    (size,) = export.symbolic_shape("b")
    open_x = jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
    groups = axis_groups(network.fn, network.variables, x)
    assert str(axis_groups(network.fn, network.variables, open_x)) == str(groups)
    mask = channel_mask(channel_scores(groups, network.variables, pool="group"), 0.5)
    small = compact(network.fn, network.variables, mask, x)
    run = jax.jit(small.resized(network.fn))
    batch = jax.random.normal(jax.random.key(5), (x.shape[0] + 3, *x.shape[1:]))
    got = export.export(run)(small.variables, open_x).call(small.variables, batch)
    np.testing.assert_allclose(got, run(small.variables, batch), rtol=1e-5, atol=1e-6)


def test_a_function_that_needs_removed_channels_is_refused():
    network = STRUCTURES["stacked"]()
    groups = axis_groups(network.fn, network.variables, *network.inputs)
    mask = {name: np.arange(group.size) % 3 > 0 for name, group in groups.named.items()}
    small = compact(network.fn, network.variables, mask, *network.inputs)
    with pytest.raises(ValueError, match=r"without channels.*'in'.*sort"):
        small.resized(lambda p: jnp.sort(p["in"], axis=1))(small.variables)
    with pytest.raises(ValueError, match=r"without channels.*'in'.*not zero where reduce_sum"):
        small.resized(lambda p: jnp.cumsum(jnp.cos(p["in"]), 0).sum())(small.variables)
    with pytest.raises(ValueError, match=r"ties channels of axis 1 of 'in'.*would keep 2 of 8"):
        small.resized(lambda p: p["in"].reshape(4, 4, 2).sum(2))(small.variables)


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (lambda y: y / jnp.cumsum(jnp.cos(y), 0).sum(-1, keepdims=True), "not zero where reduce_sum"),
        (lambda y: jax.nn.softmax(y), "reduced over in reduce_max"),
        (lambda y: jax.lax.scan(lambda c, _: (jnp.cumsum(c, 1), None), y, None, length=2)[0], "mixed along in cumsum"),
        (lambda y: jnp.roll(y, 2, axis=1), "in slice"),
    ],
)
def test_what_cannot_be_followed_is_named(middle, reason):
    params = {"w": jnp.ones((5, 8)), "out": jnp.ones((8, 3))}
    groups = axis_groups(lambda p, x: middle(x @ p["w"]) @ p["out"], params, jnp.ones((4, 5)))
    assert not groups.prunable
    assert any(reason in group.reason for group in groups.groups if ("w", 1) in group.axes), str(groups)


def test_names_of_a_state_dict_are_joined_by_layer():
    params = {"a.weight": jnp.ones((8, 5)), "a.bias": jnp.ones(8), "b.weight": jnp.ones((3, 8))}
    groups = axis_groups(lambda p, x: p["b.weight"] @ (p["a.weight"] @ x + p["a.bias"]), params, jnp.ones(5))
    assert "8  a.{bias,weight}[0], b.weight[1]" in str(groups)
    assert list(groups.named) == ["a.bias[0]"]


def test_rounding_gives_back_the_largest_channels():
    network = STRUCTURES["stacked"]()
    groups = axis_groups(network.fn, network.variables, *network.inputs)
    scores = channel_scores(groups, network.variables)
    small = compact(network.fn, network.variables, channel_mask(scores, 0.6), *network.inputs, round_to=4)
    for name, keep in small.mask.items():
        assert int(keep.sum()) % 4 == 0 or keep.all()
        if not keep.all():
            assert scores[name][keep].min() >= scores[name][~keep].max()


def test_bad_input_gets_one_sentence():
    network = STRUCTURES["stacked"]()
    variables, inputs = network.variables, network.inputs
    groups = axis_groups(network.fn, variables, *inputs)
    name = next(iter(groups.named))
    with pytest.raises(ValueError, match=r"names 'head\[0\]'.*make it from channel_scores"):
        compact(network.fn, variables, {"head[0]": np.ones(8, bool)}, *inputs)
    for use in (
        lambda mask: compact(network.fn, variables, mask, *inputs),
        lambda m: mask_channels(groups, variables, m),
    ):
        with pytest.raises(ValueError, match=r"is float.*not a boolean array"):
            use({name: np.ones(groups.named[name].size)})
    for wrong, said in (
        ({"zzz": jnp.ones(3)}, "there is no"),
        (jax.tree.map(lambda x: x[:, :1], variables), "has shape"),
    ):
        with pytest.raises(ValueError, match=f"params do not fit the groups: .*{said}"):
            channel_scores(groups, wrong)
    with pytest.raises(ValueError, match=r"shape \(3,\).*another size"):
        mask_channels(groups, variables, {name: np.ones(3, bool)})
    with pytest.raises(ValueError, match="score is 'largest'"):
        channel_scores(groups, variables, "largest")
    with pytest.raises(ValueError, match="pool is 'layer'"):
        channel_scores(groups, variables, pool="layer")
    with pytest.raises(ValueError, match="need gradient"):
        channel_scores(groups, variables, "taylor")
    with pytest.raises(ValueError, match="need key"):
        channel_scores(groups, variables, "random")


def test_the_program_of_the_documentation(capsys):
    page = (Path(__file__).parents[2] / "docs" / "structured.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(program.splitlines()) < 40
    exec(compile(program, "docs/structured.md", "exec"), {"__name__": "program"})
    printed = capsys.readouterr().out
    assert "4         2  {k,q,v}[1] x2, o[0] x2" in printed and "6         3  o[1], out[0]" in printed
