import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lotto_jax.models import autoencoder, compacted, dcgan, layers, resnet_gan, sngan
from lotto_jax.objectives import adversarial
from lotto_jax.pruning import channels, compaction, dependency, masks, structured
from tests.pruning.networks import (
    NETWORKS,
    OURS,
    MobileNet,
    Network,
    ResNet18,
    ResNeXt,
    images,
    latents,
    linen,
    ours,
    randomize,
)

# Where channels are tied to others, which may have to stay: residual sums, groups. Elsewhere all that is masked goes.
TIED = (
    *("resnet18", "separable", "mobilenet", "mobilenet_multiplier", "resnext", "densenet"),
    *("our_resnet_generator", "our_resnet_vae", "our_resnet18"),
)


def params_of(variables):
    return variables["params"] if isinstance(variables, dict) and "params" in variables else variables


def with_params(variables, params):
    return {**variables, "params": params} if params_of(variables) is not variables else params


def scales_of(network: Network):
    def is_norm_weight(path, leaf):
        name = masks.path_name(path)
        return channels.is_scale(path, leaf) or (name.startswith("norms/") and name.endswith("/weight"))

    return channels.batch_norm_scales(params_of(network.variables), is_norm_weight)


def size(tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def assert_equal_outputs(a, b, tolerance=1e-5):
    for x, y in zip(*map(jax.tree.leaves, jax.device_get((a, b))), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * np.abs(x).max())


@pytest.mark.parametrize("fraction", [0.3, 0.5])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_compacted_network_equals_the_masked_one(name, fraction):
    network = NETWORKS[name]()
    params, scales = params_of(network.variables), scales_of(network)
    mask = jax.jit(lambda scales: channels.channel_mask(scales, fraction))(scales)
    masked = with_params(network.variables, jax.jit(channels.apply_channel_mask)(params, mask))
    fn = jax.jit(network.fn)
    expected, dense = jax.device_get((fn(masked, *network.inputs), fn(network.variables, *network.inputs)))
    difference = [np.abs(x - y).max() for x, y in zip(*map(jax.tree.leaves, (dense, expected)), strict=True)]
    assert max(difference) > 1e-2, "the mask must change the outputs, or equality would say nothing"

    small = compaction.compact(network.fn, masked, mask, *network.inputs)
    assert size(small.variables) < size(network.variables)
    small_fn = jax.jit(network.rebuild(small.variables))
    assert_equal_outputs(expected, small_fn(small.variables, *network.inputs))
    if name not in TIED:
        assert not small.left
        for key, kept in mask.items():
            np.testing.assert_array_equal(small.mask[key], kept)


def test_generator_by_hand():
    """11 of 24, 9 of 16 and 5 of 10 channels: every shape follows from the architecture."""
    network = NETWORKS["dcgan_generator"]()
    keep = {"bn0/scale": 11, "bn1/scale": 9, "bn2/scale": 5}
    sizes = {"bn0/scale": 24, "bn1/scale": 16, "bn2/scale": 10}
    rng = np.random.default_rng(0)
    mask = {k: jnp.asarray(rng.permutation(n) < keep[k]) for k, n in sizes.items()}
    small = compaction.compact(network.fn, network.variables, mask, *network.inputs)
    shapes = {masks.path_name(p): x.shape for p, x in jax.tree_util.tree_leaves_with_path(small.variables["params"])}
    assert shapes["project/kernel"] == (5, 16 * 11)
    assert shapes["up1/kernel"] == (4, 4, 11, 9)
    assert shapes["up2/kernel"] == (4, 4, 9, 5)
    assert shapes["image/kernel"] == (3, 3, 5, 3)
    assert small.variables["batch_stats"]["bn1"]["var"].shape == (9,)
    # Channel c of the 4x4 map is column (4 i + j) * 24 + c of the dense layer.
    columns = np.flatnonzero(np.tile(np.asarray(mask["bn0/scale"]), 16))
    kernel = np.asarray(network.variables["params"]["project"]["kernel"])
    np.testing.assert_array_equal(small.variables["params"]["project"]["kernel"], kernel[:, columns])
    table = str(small)
    assert "24        11" in table and "project/kernel[1] x16" in table


def test_residual_channels_go_when_all_that_is_added_is_masked():
    network = linen(ResNet18(), images(3, 32))
    scales = channels.batch_norm_scales(network.variables["params"])
    mask = {k: jnp.ones(v.shape, bool) for k, v in scales.items()}
    stage = ("stem_bn", "s0b0_bn2", "s0b1_bn2")
    for name in stage[:-1]:
        mask[f"{name}/scale"] = mask[f"{name}/scale"].at[jnp.array([2, 5])].set(False)
    part = compaction.compact(network.fn, network.variables, mask, *network.inputs)
    # The stem's and the first block's sum is zero there, but the second block adds to it before the next stage.
    assert not part.kept and sum(part.left["stem_bn/scale"].values()) == 2
    assert "s1b0" in str(part) and "stay: not zero where" in str(part)
    mask["s0b1_bn2/scale"] = mask["stem_bn/scale"]
    whole = compaction.compact(network.fn, network.variables, mask, *network.inputs)
    assert not whole.left
    params = whole.variables["params"]
    assert params["stem"]["kernel"].shape[-1] == params["s1b0_down"]["kernel"].shape[2] == 6


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_channels_go_when_their_outputs_are_masked(multiplier):
    network = ours(MobileNet(multiplier), images(3, 8))
    mask = {k: jnp.ones(v.shape, bool) for k, v in scales_of(network).items()}
    expanded, outputs = "BatchNorm_1/scale", "BatchNorm_2/scale"  # before and after the depthwise convolution
    mask[expanded] = mask[expanded].at[jnp.array([3, 8, 9])].set(False)
    gone = jnp.array([3, 9, 20])
    for i in range(multiplier):
        mask[outputs] = mask[outputs].at[gone * multiplier + i].set(False)
    masked = with_params(network.variables, channels.apply_channel_mask(network.variables["params"], mask))
    small = compaction.compact(network.fn, masked, mask, *network.inputs)
    shapes = {name: small.variables["params"][name]["kernel"].shape for name in ("Conv_1", "Conv_2", "Conv_3")}
    width = 29 * multiplier
    assert shapes == {"Conv_1": (1, 1, 8, 29), "Conv_2": (3, 3, 1, width), "Conv_3": (1, 1, width, 8)}
    # Channel 8 is masked before the depthwise convolution only: the shift of the norm after it brings it back.
    assert {name: sum(why.values()) for name, why in small.left.items()} == {expanded: 1}
    fn = network.rebuild(small.variables)
    assert_equal_outputs(network.fn(masked, *network.inputs), fn(small.variables, *network.inputs))


def test_groups_lose_the_positions_that_are_masked_in_each_of_them():
    network = ours(ResNeXt(), images(3, 8))
    mask = {k: jnp.ones(v.shape, bool) for k, v in scales_of(network).items()}
    into, out = np.array([0, 3, 4, 5, 7, 8, 11]), np.array([1, 6])  # of 12 and 8 in a group
    mask["BatchNorm_1/scale"] = mask["BatchNorm_1/scale"].at[jnp.asarray([*into, *(into + 12)])].set(False)
    mask["BatchNorm_2/scale"] = mask["BatchNorm_2/scale"].at[jnp.asarray([*out, *(out + 8), 7])].set(False)
    masked = with_params(network.variables, channels.apply_channel_mask(network.variables["params"], mask))
    small = compaction.compact(network.fn, masked, mask, *network.inputs)
    assert small.variables["params"]["Conv_2"]["kernel"].shape == (3, 3, 5, 12)
    assert {name: sum(why.values()) for name, why in small.left.items()} == {"BatchNorm_2/scale": 1}
    fn = network.rebuild(small.variables)
    assert_equal_outputs(network.fn(masked, *network.inputs), fn(small.variables, *network.inputs))


def test_a_shared_depthwise_layer_follows_its_kernel_at_each_call():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = nn.Conv(12, (3, 3), feature_group_count=6)
            return layer(x) + layer(inputs=2 * x)

    x = images(6, 8)
    variables = randomize(Twice().init(jax.random.key(0), x))
    left = np.array([0, 2, 5])
    outputs = np.stack([2 * left, 2 * left + 1], 1).reshape(-1)
    layer = variables["params"]["Conv_0"]
    small = {"params": {"Conv_0": {"kernel": layer["kernel"][..., outputs], "bias": layer["bias"][outputs]}}}
    with compacted.widths_of_params():
        got, whole = Twice().apply(small, x[..., left]), Twice().apply(variables, x)
    np.testing.assert_array_equal(whole, Twice().apply(variables, x))
    assert_equal_outputs(whole[..., outputs], got)


@pytest.mark.parametrize("shape", [(3, 3, 1, 5), (3, 3, 2, 5), (3, 3, 2, 6)])
def test_a_grouped_kernel_that_does_not_fit_is_named(shape):
    class Grouped(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Conv(8, (3, 3), feature_group_count=4, use_bias=False, name="grouped")(x)

    with compacted.widths_of_params(), pytest.raises(ValueError, match=r"kernel of 'grouped' takes.*pruning.compact"):
        Grouped().apply({"params": {"grouped": {"kernel": jnp.ones(shape)}}}, images(6, 8))


def test_round_to_gives_back_the_largest_scales():
    network = NETWORKS["conv_vae"]()
    scales = scales_of(network)
    mask = channels.channel_mask(scales, 0.6)
    small = compaction.compact(network.fn, network.variables, mask, *network.inputs, round_to=4)
    exact = compaction.compact(network.fn, network.variables, mask, *network.inputs)
    for name, gamma in scales.items():
        wanted, got = int(exact.mask[name].sum()), np.asarray(small.mask[name])
        assert got.sum() == min(-(-wanted // 4) * 4, gamma.size)
        assert not np.any(np.asarray(exact.mask[name]) & ~got)
        if not got.all():
            assert np.abs(gamma)[~got].max() <= np.abs(gamma)[got].min()
        if got.sum() > wanted:
            assert small.left[name] == {"rounded to a multiple of 4": got.sum() - wanted}


def test_given_unmasked_params_the_effective_mask_says_what_is_left():
    """Compaction only slices: channels that come back by rounding, or had to stay, keep their values."""
    network = NETWORKS["resnet18"]()
    params = network.variables["params"]
    mask = channels.channel_mask(scales_of(network), 0.5)
    small = compaction.compact(network.fn, network.variables, mask, *network.inputs, round_to=4)
    effective = {**network.variables, "params": channels.apply_channel_mask(params, small.mask)}
    expected = jax.jit(network.fn)(effective, *network.inputs)
    assert_equal_outputs(expected, jax.jit(network.rebuild(small.variables))(small.variables, *network.inputs))


def test_optimizer_state_and_magnitude_masks_shrink_along():
    network = NETWORKS["dcgan_discriminator"]()
    params = network.variables["params"]
    rng = np.random.default_rng(0)
    weights = jax.tree.map(lambda m: jnp.asarray(rng.random(m.shape) < 0.5) if m.ndim else m, masks.ones(params))
    params = masks.apply(params, weights)
    variables = {**network.variables, "params": params}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    update = jax.jit(optimizer.update)
    state = optimizer.init(params)
    grads = randomize(params, 7)
    _, state = update(masks.apply(grads, weights), state, params)

    mask = channels.channel_mask(scales_of(network), 0.5)
    small = compaction.compact(network.fn, variables, mask, *network.inputs)
    fewer, moments = small.shrink(weights), small.shrink(state)
    masks.check(small.variables["params"], fewer)
    jax.tree.map(
        np.testing.assert_array_equal,
        small.variables["params"],
        masks.apply(small.variables["params"], fewer),
    )
    # Adam's moments are those of the channels that are left: shrinking commutes with the update.
    small_params = small.variables["params"]
    _, expected = update(small.shrink(masks.apply(grads, weights)), optimizer.init(small_params), small_params)
    assert jax.tree.structure(moments) == jax.tree.structure(expected)
    assert jax.tree.map(jnp.shape, moments) == jax.tree.map(jnp.shape, expected)
    assert int(moments[1][0].count) == 1
    kept = np.flatnonzero(np.asarray(mask["bn1/scale"]))
    np.testing.assert_array_equal(moments[1][0].mu["conv1"]["kernel"], state[1][0].mu["conv1"]["kernel"][..., kept])


@pytest.mark.parametrize("name", OURS)
def test_the_fast_lowering_gives_the_groups_of_the_plain_one(name):
    network = OURS[name]()

    def prunable():
        fn = lambda *inputs: network.fn(*inputs)  # noqa: E731  (a function of its own, so that it is traced anew)
        groups = dependency.axis_groups(fn, network.variables, *network.inputs).prunable
        return {tuple((leaf, where.tobytes()) for leaf, where in sorted(g.axes.items())) for g in groups}

    fast = prunable()
    with layers.plain_lowering():
        assert fast == prunable()
    assert fast


class SpectralNormBeforeNorm(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        for i in range(2):
            conv = layers.Conv(6, (3, 3), name=f"conv_{i}")
            x = nn.relu(nn.BatchNorm(not train, name=f"norm_{i}")(layers.spectral_norm(conv)(x, update_stats=train)))
        return nn.Dense(3)(x.mean((1, 2)))


def test_spectral_norm_keeps_its_channels_and_is_named():
    """Fewer rows or columns that are not zero would change the singular value that the kernel is divided by."""
    network = ours(SpectralNormBeforeNorm(), images(3, 8))
    mask = {f"norm_{i}/scale": jnp.arange(6) > 2 for i in range(2)}
    small = compaction.compact(network.fn, network.variables, mask, *network.inputs)
    assert not small.kept
    for reasons in small.left.values():
        ((reason, count),) = reasons.items()
        assert count == 3 and "spectral" in reason
    for model in (sngan.Discriminator(4, 16), resnet_gan.Discriminator(4, 16)):
        network = ours(model, images(3, 16))
        with pytest.raises(ValueError, match="needs a network with batch norm"):
            scales_of(network)


def test_spectral_norm_loses_rows_and_columns_that_are_zero():
    """They add nothing to the singular value, and the power iteration's vectors lose the same entries."""
    network = ours(sngan.Discriminator(4, 16), images(3, 16))
    groups = dependency.axis_groups(network.fn, network.variables, *network.inputs)
    mask = {name: np.arange(group.size) % 3 > 0 for name, group in groups.named.items()}
    masked = jax.jit(lambda variables: structured.mask_channels(groups, variables, mask))(network.variables)
    small = compaction.compact(network.fn, network.variables, mask, *network.inputs)
    assert not small.left and size(small.variables) < 0.7 * size(network.variables)
    expected = jax.jit(network.fn)(masked, *network.inputs)
    assert_equal_outputs(expected, jax.jit(small.resized(network.fn))(small.variables, *network.inputs))


def test_training_the_compacted_network_is_training_the_masked_one():
    """A step on batch statistics, with Adam's moments carried over and a magnitude mask composed."""
    network = OURS["our_conv_autoencoder"]()
    (image,), module = network.inputs, autoencoder.ConvAutoencoder(7, 4, 16)
    mask = channels.channel_mask(scales_of(network), 0.5)
    params = channels.apply_channel_mask(network.variables["params"], mask)
    weights = jax.tree.map(lambda m, x: jnp.abs(x) > 0.1 if m.ndim else m, masks.ones(params), params)
    params = masks.apply(params, weights)
    optimizer = optax.adam(1e-2)
    _, moments = optimizer.update(randomize(params, 7), optimizer.init(params))

    @functools.partial(jax.jit, static_argnums=0)
    def step(module, params, stats, opt_state, weights):
        def loss(params):
            variables = {"params": params, "batch_stats": stats}
            output, state = module.apply(variables, image, train=True, mutable=["batch_stats"])
            return jnp.mean((output - image) ** 2), state["batch_stats"]

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(masks.apply(grads, weights), opt_state)
        return value, masks.apply(optax.apply_updates(params, updates), weights), stats, opt_state

    before = (params, network.variables["batch_stats"], moments, weights)
    small = compaction.compact(network.fn, {**network.variables, "params": params}, mask, image)
    assert not small.left
    expected = step(module, *before)
    with compacted.widths_of_params():
        got = step(module, *small.shrink(before))
    assert int(got[3][0].count) == 2
    assert_equal_outputs(small.shrink(expected), got, 1e-4)


def test_the_train_state_of_a_gan_shrinks_as_a_whole():
    """Both components have a layer `conv_8`, and each its own optimizer state."""
    generator, discriminator = dcgan.Generator(4, 16), dcgan.Discriminator(4, 16)
    adam = optax.adam(1e-3)
    objective = adversarial.make(generator, discriminator, adam, adam, (16, 16, 3), latent=5)
    shapes = jax.eval_shape(objective.init, jax.random.key(0))
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes._replace(key=None))
    variables = {"params": state.params, **state.model_state}

    def fn(variables, z, image):
        g, d = ({k: v[name] for k, v in variables.items()} for name in ("generator", "discriminator"))
        return generator.apply(g, z, train=False), discriminator.apply(d, image, train=False)

    mask = channels.channel_mask(channels.batch_norm_scales(randomize(state.params)), 0.5)
    small = compaction.compact(fn, variables, mask, latents(), images(3, 16))
    assert not small.left
    fewer = small.shrink(state)
    for name, params in small.variables["params"].items():
        shape = jax.tree.map(jnp.shape, params)
        assert shape != jax.tree.map(jnp.shape, state.params[name])
        moments = fewer.opt_state[name].inner_state[0]  # of optax.apply_if_finite
        assert jax.tree.map(jnp.shape, fewer.params[name]) == shape
        assert jax.tree.map(jnp.shape, moments.mu) == jax.tree.map(jnp.shape, moments.nu) == shape
        stats = small.variables["batch_stats"][name]
        assert jax.tree.map(jnp.shape, fewer.model_state["batch_stats"][name]) == jax.tree.map(jnp.shape, stats)


def norm(params, i, x):
    shape = (1,) * (x.ndim - 1) + (-1,)
    return x * params[f"n{i}"]["gamma"].reshape(shape) + params[f"n{i}"]["beta"].reshape(shape)


def two_layers(middle, tail=lambda params, y: y @ params["out"]):
    """x -> dense 8 -> norm -> middle -> dense: what `middle` does decides whether the 8 channels can go."""

    def fn(params, x):
        return tail(params, middle(norm(params, 1, x @ params["w"])))

    return fn


def scan_twice(y):
    return jax.lax.scan(lambda c, _: (jnp.tanh(c), None), y, None, length=2)[0]


def scan_sorted(y):
    return jax.lax.scan(lambda c, _: (jnp.sort(c), None), y, None, length=2)[0]


def group_norm(y):
    parts = y.reshape(y.shape[0], 4, 2)
    return (parts - parts.mean(-1, keepdims=True)).reshape(y.shape)


def shuffle(y):
    return y.reshape(y.shape[0], 2, 4).swapaxes(1, 2).reshape(y.shape)


def heads(y):
    parts = y.reshape(y.shape[0], 2, 4)
    return jnp.repeat(jnp.einsum("nhd,mhd->nh", parts, parts), 4, axis=1)


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (
            lambda y: (y - y.mean(-1, keepdims=True)) / (1 + y.var(-1, keepdims=True)),
            "reduced over in reduce_sum",
        ),
        (jax.nn.softmax, "reduced over in reduce_max"),
        (group_norm, "part of a split axis"),
        (shuffle, "split into several axes"),
        (heads, "part of a split axis"),
        (lambda y: jax.nn.sigmoid(y), "not zero where dot_general"),
        (lambda y: y + 1.0, "not zero where dot_general"),
        (lambda y: jnp.cos(y), "not zero where dot_general"),
        (lambda y: y * jnp.arange(8.0)[None], "fixed size in mul"),
        (lambda y: jnp.cumsum(y, axis=1), "cut or mixed along in cumsum"),
        (lambda y: jnp.sort(y, axis=1), "cannot follow sort"),
        (lambda y: y[:, ::-1], "cut or mixed along in rev"),
        (lambda y: jnp.concatenate([y[:, 3:], y[:, :3]], 1), "cut or mixed along in slice"),
        (lambda y: jnp.concatenate(jnp.split(y, [3], axis=1)[::-1], 1), "split unevenly"),
        (lambda y: jnp.pad(y, ((0, 0), (1, 1)))[:, :8], "cut or mixed along in pad"),
        (scan_sorted, "cannot follow sort"),
        (lambda y: jnp.roll(y, 1, axis=1), ""),
        (lambda y: y[:, jnp.array([0, 2, 1, 3, 4, 5, 6, 7])], "looked up in gather"),
        (lambda y: jnp.where(y > 0, y, y + 2.0), "not zero where dot_general"),
        (lambda y: y / jnp.max(y), "reduced over in reduce_max"),
    ],
)
def test_what_cannot_be_followed_is_left_alone_and_named(middle, reason):
    shapes = {
        "w": jnp.zeros((5, 8)),
        "n1": {"gamma": jnp.zeros(8), "beta": jnp.zeros(8)},
        "out": jnp.zeros((8, 3)),
    }
    params, x = randomize(shapes), jax.random.normal(jax.random.key(0), (4, 5))
    fn = two_layers(middle)
    mask = {"n1/gamma": jnp.arange(8) < 5}
    small = compaction.compact(fn, params, mask, x)
    assert jax.tree.map(jnp.shape, small.variables) == jax.tree.map(jnp.shape, params)
    (found,) = small.left["n1/gamma"]
    assert reason in found
    assert small.left["n1/gamma"][found] == 3
    assert found in str(small)


@pytest.mark.parametrize(
    "middle",
    [
        lambda y: jax.nn.leaky_relu(y, 0.1),
        jax.nn.gelu,
        jax.nn.silu,
        jax.nn.elu,
        jax.nn.relu6,
        lambda y: y * jax.nn.sigmoid(y + 1.0),
        lambda y: jnp.sqrt(jnp.abs(y)) - jnp.expm1(y) ** 3,
        lambda y: jnp.clip(y, -1.0, 1.0),
        lambda y: y.astype(jnp.bfloat16).astype(jnp.float32),
        lambda y: jnp.concatenate([y, y * 2.0], axis=0)[: y.shape[0]],
        lambda y: y / (1.0 + y.max(0, keepdims=True) ** 2),
        lambda y: y[:, None, :].swapaxes(1, 2).squeeze(-1),
        lambda y: (y.T @ jnp.eye(y.shape[0])).T,
        lambda y: jnp.einsum("nc,c->nc", y, jnp.ones(y.shape[1])),
        lambda y: sum(jnp.split(jnp.concatenate([y, jnp.tanh(y)], 1), 2, axis=1)),
        jax.jit(lambda y: jax.checkpoint(jnp.tanh)(y)),
        scan_twice,
    ],
)
def test_what_keeps_zero_at_zero_is_followed(middle):
    shapes = {
        "w": jnp.zeros((5, 8)),
        "n1": {"gamma": jnp.zeros(8), "beta": jnp.zeros(8)},
        "out": jnp.zeros((8, 3)),
    }
    params, x = randomize(shapes), jax.random.normal(jax.random.key(0), (4, 5))
    fn = two_layers(middle)
    mask = {"n1/gamma": jnp.array([1, 0, 1, 1, 0, 0, 1, 1], bool)}
    small = compaction.compact(fn, params, mask, x)
    assert small.variables["w"].shape == (5, 5) and small.variables["out"].shape == (5, 3)
    assert_equal_outputs(fn(channels.apply_channel_mask(params, mask), x), fn(small.variables, x))


def test_axis_groups_of_the_unet_keep_the_skips_apart():
    network = NETWORKS["unet"]()
    groups = dependency.axis_groups(network.fn, network.variables, *network.inputs)
    by_size = {g.axes["down1/w", 3].size: g for g in groups.prunable if ("down1/w", 3) in g.axes}
    skip = by_size[8]
    # up1 reads 9 channels from below and then the 8 of the skip.
    np.testing.assert_array_equal(skip.axes["up1/w", 2][:, 0], np.arange(9, 17))
    assert ("down2/w", 2) in skip.axes and len(groups.prunable) == 5
    table = str(groups)
    assert "up1/w[2]" in table and "out[3]: output of the function" in table


def test_shape_structs_are_enough_to_find_groups():
    network = NETWORKS["conv_vae"]()
    abstract = jax.eval_shape(lambda v: v, network.variables)
    a = dependency.axis_groups(network.fn, network.variables, *network.inputs)
    b = dependency.axis_groups(network.fn, abstract, *jax.eval_shape(lambda *x: x, *network.inputs))
    assert str(a) == str(b)


def test_bad_input_gets_one_sentence():
    network = NETWORKS["dict_mlp"]()

    def compact(mask):
        return compaction.compact(network.fn, network.variables, mask, *network.inputs)

    with pytest.raises(ValueError, match=r"would empty axis 0 of 'layer1/beta'.*keep at least one"):
        compact({"layer1/gamma": jnp.zeros(14, bool)})
    with pytest.raises(ValueError, match="names 'layer9/gamma'"):
        compact({"layer9/gamma": jnp.zeros(14, bool)})
    small = compact({"layer1/gamma": jnp.arange(14) > 2})
    with pytest.raises(ValueError, match="shapes before compaction"):
        small.shrink(small.variables)
