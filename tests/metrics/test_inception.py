import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax.metrics import inception, weights


def window_oracle(x: np.ndarray, reduce) -> np.ndarray:
    """`reduce` over the pixels of each 3x3 window that exist."""
    out = np.zeros_like(x)
    _, height, width, _ = x.shape
    for i in range(height):
        for j in range(width):
            window = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            out[:, i, j] = reduce(window, axis=(1, 2))
    return out


def pointwise(x: np.ndarray, entry: dict) -> np.ndarray:
    return x @ np.asarray(entry["kernel"])[0, 0] + np.asarray(entry["bias"])


@pytest.fixture
def x() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (2, 5, 6, 24))


def randomize(params):
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return structure.unflatten([0.2 * jax.random.normal(k, p.shape) for k, p in zip(keys, leaves, strict=True)])


@pytest.mark.parametrize(
    ("block", "reduce"),
    [
        (inception._InceptionA(32), np.mean),
        (inception._InceptionC(16), np.mean),
        (inception._InceptionE(max_pool=False), np.mean),
        (inception._InceptionE(max_pool=True), np.max),
    ],
    ids=["A", "C", "E average", "E maximum"],
)
def test_pool_branches_leave_the_padding_out(block, reduce, x):
    """The last channels are ReLU(convolution(pool)) over real pixels only, by maximum in mixed_7c alone."""
    params = randomize(block.init(jax.random.key(0), x)["params"])
    found = np.asarray(block.apply({"params": params}, x))
    expected = np.maximum(pointwise(window_oracle(np.asarray(x), reduce), params["branch_pool"]), 0.0)
    np.testing.assert_allclose(found[..., -expected.shape[-1] :], expected, atol=1e-5)
    first = np.maximum(pointwise(np.asarray(x), params["branch1x1"]), 0.0)
    np.testing.assert_allclose(found[..., : first.shape[-1]], first, atol=1e-5)


def test_folding_is_batch_normalization_with_the_epsilon_of_the_graph(x):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 24, 3, 3)).astype(np.float32)
    gamma, beta, mean = (rng.normal(size=4).astype(np.float32) for _ in range(3))
    variance = np.float32([1e-4, 1e-3, 0.5, 2.0])  # the first two tell 1e-3 from 1e-5
    folded, bias = weights.fold(kernel, gamma, beta, mean, variance)
    plain = nn.Conv(4, (3, 3), use_bias=False, precision="highest")
    y = plain.apply({"params": {"kernel": jnp.asarray(kernel.transpose(2, 3, 1, 0))}}, x)
    expected = (np.asarray(y, np.float64) - mean) / np.sqrt(variance.astype(np.float64) + 1e-3) * gamma + beta
    biased = nn.Conv(4, (3, 3), precision="highest")
    found = biased.apply({"params": {"kernel": folded, "bias": bias}}, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_every_product_is_in_full_float32():
    shape = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
    network = inception.InceptionV3()
    params = jax.eval_shape(network.init, jax.random.key(0), shape)
    jaxpr = jax.make_jaxpr(network.apply)(params, shape)
    loops = [eqn.params["jaxpr"].eqns for eqn in jaxpr.eqns if eqn.primitive.name == "scan"]
    products = [
        eqn.params["precision"]
        for eqn in itertools.chain(jaxpr.eqns, *loops)
        if eqn.primitive.name in ("conv_general_dilated", "dot_general")
    ]
    highest = jax.lax.Precision.HIGHEST
    assert len(products) > 60
    assert all(p in (highest, (highest, highest)) for p in products)


def test_layers_and_shapes():
    shape = jax.ShapeDtypeStruct((2, 299, 299, 3), jnp.uint8)
    network = inception.InceptionV3(dtype=jnp.bfloat16)
    features, _ = jax.eval_shape(lambda k, x: network.init_with_output(k, x), jax.random.key(0), shape)
    widths = {"64": 64, "192": 192, "768": 768, "2048": 2048, "logits_unbiased": 1008, "logits": 1008}
    assert {name: value.shape for name, value in features.items()} == {n: (2, w) for n, w in widths.items()}
    assert all(value.dtype == jnp.float32 for value in features.values())


def test_bfloat16_stays_near_float32(x):
    block = inception._InceptionA(32)
    params = randomize(block.init(jax.random.key(0), x)["params"])
    exact = block.apply({"params": params}, x)
    short = block.apply({"params": params}, x.astype(jnp.bfloat16))
    assert short.dtype == jnp.bfloat16
    # Three layers, each with roundings of 2^-9 relative.
    assert float(jnp.max(jnp.abs(short.astype(jnp.float32) - exact)) / jnp.max(exact)) < 0.03
