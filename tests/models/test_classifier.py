import functools

import jax
import jax.numpy as jnp
import numpy as np

from lotto_jax.models.classifier import ResNet18


def test_full_width_has_the_customary_size():
    shapes = jax.eval_shape(lambda key: ResNet18().init(key, jnp.zeros((1, 32, 32, 3)), train=False), jax.random.key(0))
    assert set(shapes["params"]) == {"classifier"}
    # The widely used PyTorch CIFAR ResNet-18 counts 11,173,962.
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 11_173_962


def test_stages_halve_the_image_and_double_the_channels():
    network = ResNet18(classes=7, width=4)

    def trace(key):
        image = jnp.zeros((2, 16, 16, 1))
        variables = network.init(key, image, train=False)
        return network.apply(variables, image, train=False, capture_intermediates=True, mutable=["intermediates"])

    _, state = jax.eval_shape(trace, jax.random.key(0))
    blocks = state["intermediates"]["classifier"]
    shapes = [blocks[f"stage{s}_block{b}"]["__call__"][0].shape for s in range(1, 5) for b in (1, 2)]
    assert shapes == [(2, 16 >> s, 16 >> s, 4 << s) for s in range(4) for _ in range(2)]


def test_head_reads_the_penultimate_features():
    network = ResNet18(width=4)
    image = jax.random.uniform(jax.random.key(1), (3, 8, 8, 3))
    variables = jax.jit(functools.partial(network.init, train=False))(jax.random.key(0), image)
    features, logits = jax.jit(functools.partial(network.apply, method="features"))(variables, image)
    assert features.shape == (3, 32)
    head = variables["params"]["classifier"]["head"]
    np.testing.assert_allclose(logits, features @ head["kernel"] + head["bias"][None], atol=1e-5)
    called = jax.jit(functools.partial(network.apply, train=False))(variables, image)
    np.testing.assert_allclose(called, logits, atol=1e-5)
