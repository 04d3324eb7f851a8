import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from lotto_jax.pruning import channels


def random_scales(seed: int, sizes: tuple[int, ...]) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {f"bn{i}/scale": jnp.asarray(rng.normal(size=n), jnp.float32) for i, n in enumerate(sizes)}


def flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(x).reshape(-1) for x in jax.tree.leaves(tree)])


def published_mask(scales, percent: float) -> np.ndarray:
    """The rule of the Early-Bird paper's PyTorch code: keep |gamma| > y[int(N p)] of the sorted values."""
    gamma = np.abs(flat(scales))
    return gamma > np.sort(gamma)[int(gamma.size * percent)]


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.15, 0.35, 0.5, 0.7, 0.95])
@pytest.mark.parametrize("traced", [False, True])
def test_removes_exactly_the_rounded_count_and_the_smallest(fraction, traced):
    scales = random_scales(0, (64, 128, 256, 130))
    mask_of = jax.jit(channels.channel_mask) if traced else channels.channel_mask
    kept, gamma = flat(mask_of(scales, fraction)), np.abs(flat(scales))
    assert (~kept).sum() == round(gamma.size * fraction)
    if fraction > 0:
        assert gamma[~kept].max() <= gamma[kept].min()


MASK = jax.jit(channels.channel_mask, static_argnames="minimum")


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.sampled_from([(1, 9), (4, 2, 7), (5,)]),  # few shapes, few compilations
    seed=st.integers(0, 99),
    minimum=st.integers(1, 3),
    share=st.floats(0, 1),
)
def test_every_layer_keeps_the_minimum_and_the_count_stays_exact(sizes, seed, minimum, share):
    # Coarse values force ties; the first layer is tiny everywhere, so that the global threshold would empty it.
    scales = {k: jnp.round(v * 2) / 2 for k, v in random_scales(seed, sizes).items()}
    scales["bn0/scale"] = scales["bn0/scale"] * 1e-3
    total, removable = sum(sizes), sum(max(n - minimum, 0) for n in sizes)
    fraction = share * removable / total
    mask = MASK(scales, fraction, minimum=minimum)
    assert all(m.sum() >= min(minimum, m.size) for m in mask.values())
    assert (~flat(mask)).sum() == round(total * round(fraction, 7))


@pytest.mark.parametrize(("count", "fraction", "removed"), [(50, 0.59, 30), (95, 0.3, 28), (1000, 0.0355, 36)])
def test_a_product_that_ends_in_a_half_is_rounded_to_even(count, fraction, removed):
    mask = channels.channel_mask(random_scales(0, (count,)), fraction)
    assert (~flat(mask)).sum() == removed


def test_the_published_rule_removes_one_more():
    scales = random_scales(1, (16, 32, 64))
    for percent in (0.1, 0.3, 0.5, 0.7):
        ours = flat(channels.channel_mask(scales, percent))
        theirs = published_mask(scales, percent)
        assert (~theirs).sum() == int(112 * percent) + 1
        assert (~ours).sum() == round(112 * percent)
        # int(N p) + 1 is what we would remove for a slightly larger fraction: the same channels.
        same = flat(channels.channel_mask(scales, (int(112 * percent) + 1) / 112))
        np.testing.assert_array_equal(same, theirs)


def test_ties_go_by_position():
    mask = channels.channel_mask({"a": jnp.ones(4), "b": jnp.ones(4)}, 0.25)
    np.testing.assert_array_equal(flat(mask), [False, False] + [True] * 6)


def test_one_compilation_serves_all_fractions_and_vmap_equals_loop():
    traces = []

    @jax.jit
    def compiled(scales, fraction):
        traces.append(fraction)
        return channels.channel_mask(scales, fraction)

    scales = [random_scales(s, (5, 11)) for s in range(3)]
    for fraction in (0.1, 0.5, 0.8):
        compiled(scales[0], fraction)
    assert len(traces) == 1
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *scales)
    batched = jax.vmap(channels.channel_mask, in_axes=(0, None))(stacked, 0.5)
    for i, one in enumerate(scales):
        jax.tree.map(lambda b, a, i=i: np.testing.assert_array_equal(b[i], a), batched, channels.channel_mask(one, 0.5))


def test_a_traced_fraction_stops_at_the_minimum():
    mask = jax.jit(channels.channel_mask)(random_scales(0, (4, 6)), 0.99)
    assert [int(m.sum()) for m in mask.values()] == [1, 1]


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True, name="bn1")(nn.Conv(6, (3, 3))(x))
        return nn.BatchNorm(use_running_average=True, use_bias=False, name="bn2")(nn.Conv(4, (3, 3))(nn.relu(x)))


def test_masked_channels_leave_their_norm_as_zero():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = Net().init(jax.random.key(1), x)
    params = jax.tree.map(lambda p: p + 0.5, variables["params"])
    scales = channels.batch_norm_scales(params)
    assert sorted(scales) == ["bn1/scale", "bn2/scale"]
    mask = {
        "bn1/scale": jnp.array([1, 0, 1, 1, 0, 1], bool),
        "bn2/scale": jnp.array([0, 1, 1, 0], bool),
    }
    masked = jax.jit(channels.apply_channel_mask)(params, mask)
    _, state = Net().apply({**variables, "params": masked}, x, capture_intermediates=True, mutable="intermediates")
    seen = state["intermediates"]
    for name in ("bn1", "bn2"):
        out = np.asarray(seen[name]["__call__"][0])
        np.testing.assert_array_equal(out[..., ~np.asarray(mask[f"{name}/scale"])], 0)
        assert np.all(np.abs(out[..., np.asarray(mask[f"{name}/scale"])]).max((0, 1, 2)) > 0)
    untouched = {"Conv_0": params["Conv_0"], "Conv_1": params["Conv_1"]}
    jax.tree.map(np.testing.assert_array_equal, untouched, {k: masked[k] for k in untouched})


def test_nnx_haiku_and_named_shifts():
    state = nnx.state(nnx.BatchNorm(4, rngs=nnx.Rngs(0)), nnx.Param)
    (name,) = channels.batch_norm_scales(state)
    assert name == "scale/value"
    params = jax.tree.map(lambda p: p + 1, state)
    masked = channels.apply_channel_mask(params, {name: jnp.array([True, False, True, True])})
    assert float(masked["bias"].get_value()[1]) == 0 == float(masked["scale"].get_value()[1])
    haiku = {"net/~/batch_norm": {"scale": jnp.ones((1, 1, 1, 3)), "offset": jnp.ones((1, 1, 1, 3))}}
    mask = channels.channel_mask(channels.batch_norm_scales(haiku), 1 / 3)
    assert channels.apply_channel_mask(haiku, mask)["net/~/batch_norm"]["offset"].sum() == 2
    odd = {"g": jnp.ones(2), "b": jnp.ones(2)}
    keep = jnp.array([True, False])
    assert channels.apply_channel_mask(odd, {"g": keep})["b"].sum() == 2
    assert channels.apply_channel_mask(odd, {"g": keep, "b": keep})["b"].sum() == 1


def test_early_bird_in_a_scan_follows_the_published_queue():
    """The numpy queue is the published algorithm: the last five masks, the newest against the four older."""
    rng = np.random.default_rng(0)
    flips = rng.random((30, 40)) < np.linspace(0.2, -0.1, 30)[:, None]
    history = np.logical_xor.accumulate(flips, axis=0)
    masks = {"a": jnp.asarray(history[:, :15]), "b": jnp.asarray(history[:, 15:])}
    detector = channels.EarlyBird(lookback=5, threshold=0.1)
    first = jax.tree.map(lambda m: m[0], masks)

    @jax.jit
    def run(masks):
        return jax.lax.scan(detector.update, detector.init(first), jax.tree.map(lambda m: m[1:], masks))

    state, found = run(masks)
    expected, queue = [], [history[0]]
    for mask in history[1:]:
        queue = [*queue, mask][-5:]
        distances = [(q != mask).mean() for q in queue[:-1]]
        expected.append(len(queue) == 5 and max(distances) < 0.1)
    np.testing.assert_array_equal(found, expected)
    assert not expected[3] and expected[-1], "the history must contain both outcomes"
    np.testing.assert_allclose(state.distances, distances, rtol=1e-6)


def test_constant_masks_are_found_when_the_window_is_full():
    mask = {"a": jnp.array([True, False])}
    detector = channels.EarlyBird(lookback=3)
    state, outcomes = detector.init(mask), []
    for _ in range(4):
        state, found = detector.update(state, mask)
        outcomes.append(bool(found))
    assert outcomes == [False, True, True, True]


def test_distance_and_penalty():
    a = {"x": jnp.array([True, True, False]), "y": jnp.array([True])}
    b = {"x": jnp.array([True, False, True]), "y": jnp.array([True])}
    assert float(channels.mask_distance(a, b)) == 0.5
    scales = {"x": jnp.array([-2.0, 0.0, 1.0])}
    value, grad = jax.value_and_grad(channels.slimming_penalty)(scales, 0.1)
    assert float(value) == pytest.approx(0.3)
    np.testing.assert_allclose(grad["x"], [-0.1, 0.0, 0.1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: channels.batch_norm_scales({"dense": {"kernel": jnp.ones((2, 2))}}),
            "needs a network with batch norm",
        ),
        (lambda: channels.channel_mask({}, 0.5), "needs a network with batch norm"),
        (
            lambda: channels.channel_mask({"a": jnp.ones(4), "b": jnp.ones(4)}, 0.9),
            "leave a layer with fewer",
        ),
        (lambda: channels.channel_mask({"a": jnp.ones(4)}, 1.5), r"fraction is 1.5.*\[0, 1\)"),
        (lambda: channels.EarlyBird(threshold=1.0), r"delta\) is 1.0.*\(0, 1\)"),
        (lambda: channels.EarlyBird(threshold=0.0), r"delta\) is 0.0"),
        (lambda: channels.EarlyBird(lookback=1), "two masks or more"),
        (lambda: channels.apply_channel_mask({"a": jnp.ones(2)}, {"b": jnp.ones(2, bool)}), "names 'b'"),
        (lambda: channels.apply_channel_mask({"a": jnp.ones(2)}, {"a": jnp.ones(3, bool)}), "shape"),
    ],
)
def test_bad_input_gets_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
