"""Networks: the paper's sizes, and what they say to images that they can't take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax.models import autoencoder, dcgan, resnet_gan, sngan, vae

Z = jax.ShapeDtypeStruct((2, 128), jnp.float32)


def image(size, channels=3):
    return jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)


def shapes(model, *args):
    return jax.eval_shape(lambda key, *a: model.init(key, *a, train=True), jax.random.key(0), *args)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree["params"]))


def gan(networks, discriminator, size):
    return [(networks.Generator(image_size=size), (Z,)), (discriminator(image_size=size), (image(size),))]


KEY = jax.eval_shape(lambda: jax.random.key(0))
# params in millions of Table 1
TABLE = {
    "linear autoencoder": (0.2, lambda size: [(autoencoder.LinearAutoencoder(), (image(28, 1),))]),
    "conv autoencoder": (3.0, lambda size: [(autoencoder.ConvAutoencoder(image_size=size), (image(size),))]),
    "vae": (5.6, lambda size: [(vae.conv_vae(image_size=size), (image(size), KEY))]),
    "resnet vae": (2.8, lambda size: [(vae.resnet_vae(image_size=size), (image(size), KEY))]),
    "dcgan": (6.5, lambda size: gan(dcgan, dcgan.Discriminator, size)),
    "sngan": (6.7, lambda size: gan(dcgan, sngan.Discriminator, size)),
    "resnet dcgan": (2.2, lambda size: gan(resnet_gan, resnet_gan.Discriminator, size)),
}


@pytest.mark.parametrize("name", TABLE)
def test_parameter_counts_are_the_papers(name):
    millions, networks = TABLE[name]
    total = sum(count(shapes(model, *args)) for model, args in networks(32))
    assert total == pytest.approx(millions * 1e6, rel=0.03)


@pytest.mark.parametrize("name", [n for n in TABLE if n != "linear autoencoder"])
def test_image_size_64_adds_a_stage(name):
    for (small, args), (large, large_args) in zip(TABLE[name][1](32), TABLE[name][1](64), strict=True):
        leaves = [len(jax.tree.leaves(shapes(m, *a)["params"])) for m, a in ((small, args), (large, large_args))]
        assert leaves[1] > leaves[0]
        variables = shapes(large, *large_args)
        output = jax.eval_shape(lambda v, *a, m=large: m.apply(v, *a, train=False), variables, *large_args)
        first = output[0] if isinstance(output, tuple) else output
        assert first.shape in {(2, 64, 64, 3), (2,)}
        assert first.dtype == jnp.float32


@pytest.mark.parametrize(("model", "generator"), [(vae.conv_vae, dcgan), (vae.resnet_vae, resnet_gan)])
def test_decoder_and_generator_have_one_parameter_tree(model, generator):
    decoder = shapes(model(width=8), image(32), KEY)
    alone = shapes(generator.Generator(width=8), Z)
    for collection in ("params", "batch_stats"):
        assert decoder[collection]["decoder"] == alone[collection]


@pytest.mark.parametrize(
    "network",
    [
        autoencoder.ConvAutoencoder,
        vae.ConvEncoder,
        vae.ResNetEncoder,
        dcgan.Discriminator,
        sngan.Discriminator,
        resnet_gan.Discriminator,
    ],
)
def test_wrong_image_sizes_are_clear_errors(network):
    with pytest.raises(ValueError, match="image_size is 28; this network takes square images"):
        shapes(network(image_size=28), image(28))
    with pytest.raises(ValueError, match=r"made for images of .* 32, 32, channels. and got .2, 28, 28, 3"):
        shapes(network(), image(28))


@pytest.mark.parametrize("generator", [dcgan.Generator, resnet_gan.Generator])
def test_generator_of_a_wrong_size_is_a_clear_error(generator):
    with pytest.raises(ValueError, match="image_size is 48"):
        shapes(generator(image_size=48), Z)


def test_generator_makes_images_between_minus_one_and_one_by_stored_statistics():
    model = dcgan.Generator(width=2, image_size=8)
    z = 10 * jax.random.normal(jax.random.key(1), (4, 5))
    variables = model.init(jax.random.key(0), z, train=False)
    images = model.apply(variables, z, train=False)
    assert images.shape == (4, 8, 8, 3)
    assert float(jnp.max(jnp.abs(images))) <= 1
    np.testing.assert_allclose(jnp.tanh(model.apply(variables, z, False, method="logits")), images)
    alone = model.apply(variables, z[:1], train=False)
    np.testing.assert_allclose(alone, images[:1], atol=1e-6)  # stored statistics: no dependence on the batch


def test_bfloat16_networks_keep_float32_params_statistics_and_outputs():
    model = sngan.Discriminator(width=2, image_size=8, dtype=jnp.bfloat16)
    variables = shapes(model, image(8))
    norm = shapes(dcgan.Generator(width=2, image_size=8, dtype=jnp.bfloat16), Z)
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, norm))} == {jnp.dtype("float32")}
    output = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, image(8))
    assert output.dtype == jnp.float32


def test_spectral_norm_divides_by_the_largest_singular_value():
    model = sngan.Discriminator(width=2, image_size=8)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    variables = model.init(jax.random.key(0), x, train=True)
    params = variables["params"]
    apply = jax.jit(lambda state: model.apply({"params": params, **state}, x, train=True, mutable=["spectral_stats"]))
    state = {"spectral_stats": variables["spectral_stats"]}
    for _ in range(200):  # one iteration a call
        output, state = apply(state)
    normalized = {}
    for name, layer in params.items():
        kernel = np.asarray(layer["kernel"], np.float64)
        sigma = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2)
        found = state["spectral_stats"][f"{name}_spectral"][f"{name}/kernel/sigma"]
        np.testing.assert_allclose(found, sigma, rtol=1e-3)
        normalized[name] = {**layer, "kernel": layer["kernel"] / sigma}
    assert len(normalized) == 4
    ones = jax.tree.map(lambda a: a, state)
    again, _ = model.apply({"params": normalized, **ones}, x, train=True, mutable=["spectral_stats"])
    np.testing.assert_allclose(again, output, rtol=1e-3)  # normalizing twice changes nothing


def test_the_linear_autoencoder_starts_as_pytorchs_layers_do():
    params = autoencoder.LinearAutoencoder(128).init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), train=False)[
        "params"
    ]
    for component, inputs in (("encoder", 784), ("decoder", 128)):
        for leaf in params[component]["dense"].values():
            bound = inputs**-0.5
            assert float(jnp.abs(leaf).max()) <= bound
            # Uniform in +-bound: standard deviation bound / sqrt(3), measured on 128 values or more.
            np.testing.assert_allclose(float(leaf.std()), bound / 3**0.5, rtol=0.2)


def test_choices_of_the_linear_autoencoder_are_what_they_say():
    x = np.random.default_rng(0).random((3, 4, 4, 1)).astype(np.float32)
    flat = x.reshape(3, 16).astype(np.float64)
    for activation, output in (("relu", "none"), ("none", "sigmoid")):
        model = autoencoder.LinearAutoencoder(5, activation=activation, output=output)
        params = model.init(jax.random.key(0), x, train=False)
        first, second = (
            jax.tree.map(lambda p: np.asarray(p, np.float64), params["params"][part]["dense"])
            for part in ("encoder", "decoder")
        )
        z = flat @ first["kernel"] + first["bias"]
        z = (np.maximum(z, 0) if activation == "relu" else z) @ second["kernel"] + second["bias"]
        expected = 1 / (1 + np.exp(-z)) if output == "sigmoid" else z
        with jax.numpy_rank_promotion("allow"):
            found = model.apply(params, x, train=False)
        np.testing.assert_allclose(found.reshape(3, 16), expected, rtol=1e-4, atol=1e-6)


def test_the_linear_autoencoder_starts_as_flax_layers_do_if_it_is_asked_to():
    x = jnp.zeros((1, 28, 28, 1))
    params = autoencoder.LinearAutoencoder(128, initialization="flax").init(jax.random.key(0), x, train=False)["params"]
    for component, inputs in (("encoder", 784), ("decoder", 128)):
        layer = params[component]["dense"]
        assert not np.any(layer["bias"])
        np.testing.assert_allclose(float(layer["kernel"].std()), inputs**-0.5, rtol=0.02)
