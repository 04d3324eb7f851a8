"""Flax variables in PyTorch's names and layouts, loaded by PyTorch itself."""

import functools

import jax
import numpy as np
import torch

from lotto_jax import export
from lotto_jax.models import dcgan
from scripts.benchmarks import torch_networks


def test_a_generator_loads_its_state_dict_and_draws_the_same_images():
    model, twin = dcgan.Generator(width=4), torch_networks.Generator(width=4).eval()
    z = jax.random.normal(jax.random.key(1), (3, 128))
    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), z)
    scaled = lambda x: x + 0.1 * np.random.default_rng(x.size).random(x.shape, np.float32)  # noqa: E731
    variables = jax.tree.map(scaled, variables)  # statistics and scales other than 0 and 1
    found = export.torch_state_dict(variables, transposed=lambda layer: layer.startswith("conv_"))
    twin.load_state_dict({name: torch.tensor(value) for name, value in found.items()})
    with torch.no_grad():
        expected = twin(torch.tensor(np.array(z))).numpy()
    drawn = np.asarray(model.apply(variables, z, train=False)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(drawn, expected, rtol=1e-4, atol=1e-5)
