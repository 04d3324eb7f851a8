"""What `lotto-jax describe` says of the networks of Table 1."""

import pytest

from lotto_jax.cli import load_config
from lotto_jax.experiments import build
from lotto_jax.experiments.describe import describe

# Millions of params of the whole network, as the paper states them.
MILLIONS = {
    "linear_ae_mnist": 0.2,
    "conv_ae_cifar10": 3.0,
    "vae_cifar10": 5.6,
    "resnet_vae_cifar10": 2.8,
    "dcgan_cifar10": 6.5,
    "sngan_cifar10": 6.7,
    "resnet_dcgan_cifar10": 2.2,
}


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
@pytest.mark.parametrize("name", MILLIONS)
def test_its_totals_are_the_papers_to_three_percent(name):
    shape = (28, 28, 1) if "mnist" in name else (32, 32, 3)
    table = describe(build.objective(load_config(f"configs/{name}.py", []), shape, 10))
    last = [cell.strip() for cell in table.splitlines()[-2].strip("| ").split("|")]
    component, params, prunable, other = last[0], *(int(cell.replace(",", "")) for cell in last[1:])
    assert component == "both" and prunable + other == params
    assert params == pytest.approx(MILLIONS[name] * 1e6, rel=0.03)
