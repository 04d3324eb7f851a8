import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lotto_jax.experiments import costs
from lotto_jax.metrics import flops
from lotto_jax.models import dcgan
from lotto_jax.objectives import adversarial
from lotto_jax.objectives.state import Batch
from lotto_jax.pruning import masks
from tests.pruning.networks import NETWORKS


def xla(fn, *inputs) -> float:
    return jax.jit(fn).lower(*inputs).cost_analysis()["flops"]


@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("padding", [((1, 1), (0, 1)), ((0, 0), (0, 0)), ((2, 1), (0, 3))])
@pytest.mark.parametrize("dilations", [(1, 1), (2, 1), (1, 2)])
def test_convolutions_equal_a_brute_force_count(strides, padding, dilations):
    """Count, in loops, the nonzero products of a convolution of ones with holes and padding."""
    lhs, rhs = dilations
    x, w = jax.ShapeDtypeStruct((2, 7, 6, 3), jnp.float32), jax.ShapeDtypeStruct((3, 2, 3, 5), jnp.float32)

    def conv(x, w, padding=padding):
        return jax.lax.conv_general_dilated(
            x, w, (strides,) * 2, padding, (lhs,) * 2, (rhs,) * 2, ("NHWC", "HWIO", "NHWC")
        )

    # A convolution of ones adds up one term for each multiply-add that is not with a hole or with padding.
    terms = conv(jnp.ones(x.shape), jnp.ones(w.shape)).sum()
    assert flops.count(conv, x, w).total == 2 * int(terms)
    assert flops.count(conv, x, w).total == pytest.approx(xla(conv, x, w), rel=1e-6)


def test_grouped_convolution_and_its_gradients_equal_xla():
    x, w = jnp.ones((2, 8, 8, 6)), jnp.ones((3, 3, 2, 9))

    def conv(x, w):
        out = jax.lax.conv_general_dilated(
            x, w, (2, 2), "SAME", feature_group_count=3, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.sum(out)

    for fn in (conv, jax.grad(conv), jax.grad(conv, argnums=1)):
        assert flops.count(fn, x, w).total == pytest.approx(xla(fn, x, w), rel=0.02)


@pytest.mark.parametrize("name", ["dcgan_generator", "dcgan_discriminator", "resnet18", "conv_vae"])
def test_train_steps_agree_with_xla_to_five_percent(name):
    network = NETWORKS[name]()
    optimizer = optax.sgd(0.1)

    def step(variables, *inputs):
        def loss(params):
            return sum(jnp.mean(y**2) for y in jax.tree.leaves(network.fn({**variables, "params": params}, *inputs)))

        gradients = jax.grad(loss)(variables["params"])
        updates, _ = optimizer.update(gradients, optimizer.init(variables["params"]))
        return optax.apply_updates(variables["params"], updates)

    counted = flops.count(step, network.variables, *network.inputs)
    assert counted.total == pytest.approx(xla(step, network.variables, *network.inputs), rel=0.05)


class Generator(nn.Module):
    """The generator of Table 1's DCGAN, 3.80 M params."""

    @nn.compact
    def __call__(self, z):
        x = nn.Dense(4 * 4 * 512)(z).reshape(-1, 4, 4, 512)
        for features in (256, 128, 64):
            x = nn.ConvTranspose(features, (4, 4), (2, 2), use_bias=False)(nn.relu(x))
        return nn.tanh(nn.Conv(3, (3, 3))(nn.relu(x)))


class Discriminator(nn.Module):
    @nn.compact
    def __call__(self, x):
        for features in (64, 128, 256, 512):
            x = nn.leaky_relu(nn.Conv(features, (4, 4), (2, 2), use_bias=False)(x), 0.2)
        return nn.Dense(1)(x.reshape(x.shape[0], -1))


# Multiply-adds for one image, taps on padding included: outputs x taps x channels in x channels out.
GENERATOR = [128 * 8192, 16 * 16 * 512 * 256, 64 * 16 * 256 * 128, 256 * 16 * 128 * 64, 1024 * 9 * 64 * 3]
DISCRIMINATOR = [256 * 16 * 3 * 64, 64 * 16 * 64 * 128, 16 * 16 * 128 * 256, 4 * 16 * 256 * 512, 2048]


def test_dcgan_updates_equal_the_hand_count():
    """One D and one G update on a shared fake batch: about 1.04 GFLOP an image."""
    batch, key = 4, jax.random.key(0)
    z, images = jnp.ones((batch, 128)), jnp.ones((batch, 32, 32, 3))
    generator, discriminator = Generator(), Discriminator()
    g = jax.eval_shape(generator.init, key, z)
    d = jax.eval_shape(discriminator.init, key, images)

    def updates(g, d, z, real):
        fake, pull = jax.vjp(lambda g: generator.apply(g, z), g)

        def d_loss(d):
            return jnp.mean(nn.softplus(-discriminator.apply(d, real)) + nn.softplus(discriminator.apply(d, fake)))

        def g_loss(fake):
            return jnp.mean(nn.softplus(-discriminator.apply(d, fake)))

        return jax.grad(d_loss)(d), pull(jax.grad(g_loss)(fake))

    counted = flops.count(updates, g, d, z, images, padding=True)
    gen, disc = sum(GENERATOR), sum(DISCRIMINATOR)
    # G: forward, and backward to weights and to inputs, save the first layer's inputs. D update: the same for
    # real and for fake images. G update: through D once more forward, and backward to inputs only.
    expected = (3 * gen - GENERATOR[0]) + 2 * (3 * disc - DISCRIMINATOR[0]) + 2 * disc
    assert counted.matmul == 2 * batch * expected
    assert counted.matmul / batch == pytest.approx(1.04e9, rel=0.01)
    assert counted.total == pytest.approx(counted.matmul, rel=0.02)
    # About 215 epochs of 50,000 images make the paper's 1.12e16.
    assert 1.12e16 / (counted.matmul / batch) / 50_000 == pytest.approx(215, rel=0.02)
    assert flops.count(updates, g, d, z, images).matmul < counted.matmul


def test_a_train_step_of_the_package_costs_what_the_hand_count_says():
    adam = optax.adam(2e-4, b1=0.5)
    objective = adversarial.make(dcgan.Generator(64), dcgan.Discriminator(64), adam, adam, (32, 32, 3))
    state = jax.eval_shape(objective.init, jax.random.key(0))
    batch = Batch(jax.ShapeDtypeStruct((64, 32, 32, 3), jnp.uint8), jax.ShapeDtypeStruct((64,), jnp.int32))
    assert costs.step_flops(objective, state, batch) / 64 == pytest.approx(1.04e9, rel=0.02)


def test_layers_are_told_apart_forward_and_backward():
    network = NETWORKS["dcgan_discriminator"]()

    def loss(params, x):
        return jnp.mean(network.fn({**network.variables, "params": params}, x) ** 2)

    counted = flops.count(jax.grad(loss), network.variables["params"], *network.inputs)
    forward, backward = next(v for k, v in counted.by_layer.items() if k.endswith("conv1"))
    assert backward == 2 * forward > 0  # to the weights and to the inputs
    forward, backward = next(v for k, v in counted.by_layer.items() if k.endswith("conv0"))
    assert backward == forward  # to the weights only
    assert sum(map(sum, counted.by_layer.values())) == counted.total == sum(counted.by_primitive.values())
    assert "conv1" in str(counted)


def test_control_flow():
    w = jnp.ones((4, 4))
    product = 2 * 4**3

    def scanned(w):
        return jax.lax.scan(lambda c, _: (c @ w, None), w, None, length=5)[0]

    def branched(w):
        return jax.lax.cond(w[0, 0] > 0, lambda w: w @ w @ w, lambda w: w @ w, w)

    def looped(w):
        return jax.lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c @ w, w)

    assert flops.count(scanned, w).matmul == 5 * product
    assert flops.count(branched, w).matmul == 2 * product
    assert flops.count(looped, w).matmul == product and len(flops.count(looped, w).loops) == 1
    assert flops.count(jax.checkpoint(jax.jit(lambda w: w @ w)), w).matmul == product
    assert flops.count(jax.vmap(lambda w: w @ w), jnp.ones((3, 4, 4))).matmul == 3 * product


def test_what_nothing_needs_is_not_counted():
    w = jnp.ones((4, 4))

    def fn(w):
        return jax.jit(lambda w: (w @ w @ w, w @ w))(w)[1]

    assert flops.count(fn, w).matmul == 2 * 4**3
    assert flops.count(jax.grad(lambda w: jnp.sum(w @ w)), w).matmul == 2 * 2 * 4**3


def test_masking_saves_nothing():
    x, w = jnp.ones((2, 4)), {"w": jnp.ones((4, 3))}
    mask = {"w": jnp.asarray(np.arange(12).reshape(4, 3) > 8)}
    dense = flops.count(lambda w, x: x @ w["w"], w, x)
    masked = flops.count(lambda w, m, x: x @ masks.apply(w, m)["w"], w, mask, x)
    assert masked.matmul == dense.matmul == 2 * 2 * 4 * 3
