"""Every network's programs, compiled for eight TPUs and eight GPUs."""

import functools
import re

import jax
import pytest

from lotto_jax import pruning
from lotto_jax.cli import load_config
from lotto_jax.experiments import preflight, programs
from lotto_jax.models import layers

# Small widths, which shorten compiling; the programs are otherwise those of the paper's networks.
NETWORKS = {
    "linear_ae_mnist": {"latent": 128},  # its full width
    "conv_ae_cifar10": {"width": 8},
    "vae_cifar10": {"width": 8},
    "resnet_vae_cifar10": {"width": 8},
    "dcgan_cifar10": {"width": 8},
    "wgan_cifar10": {"width": 8},
    "sngan_cifar10": {"width": 8},
    "resnet_dcgan_cifar10": {"width": 8},
    "resnet18_cifar10": {"width": 8},
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),  # of ml_collections
    pytest.mark.timeout(900),
]


def config_of(name, tickets=8, **model):
    config = load_config(f"configs/{name}.py", [])
    config.seeds = tuple(range(tickets))
    config.dataset.train_examples = 1000  # no data are needed then
    config.train.batch_size = 20
    config.train.epochs = 1
    config.evaluation.batch_size = 100
    config.metrics.names = ()
    if config.experiment == "imp":
        config.imp.rounds, config.imp.pruned, config.imp.arms = 1, ("both",), ("winning",)
    config.model.update({key: value for key, value in model.items() if key in config.model})
    return config


@functools.cache
def compiled(name, topology_of, tickets=8):
    """By name of the program: how it was lowered, and what was compiled."""
    with preflight.planned(config_of(name, tickets, **NETWORKS[name]), topology_of()) as (run,):
        assert run.placement.mesh.shape == {"ticket": 8, "data": 1}
        lowered = {program.name: program.lower() for program in programs.of(run) if program.name != "step"}
        # What a step has as plain convolutions, counted on its own jaxpr.
        state = jax.eval_shape(run.objective.init, jax.random.key(0))
        mask = jax.eval_shape(pruning.ones, state.params)
        with layers.plain_lowering():
            step = jax.make_jaxpr(lambda *inputs: run.objective.step(*inputs))(state, mask, run.feed.batch, state.key)
    return {key: (value.as_text(), value.compile()) for key, value in lowered.items()}, str(step), state


@pytest.fixture(params=NETWORKS)
def network(request, topology):
    return compiled(request.param, functools.cache(lambda: topology))


def float64(text):
    """Sizes of all float64 arrays of a compiled program."""
    return [shape for shape in re.findall(r"\bf64\[([\d,]*)\]", text)]


def test_programs_of_tickets_on_devices_of_their_own(network):
    found, step, _ = network
    lowered, train = found["train"]
    assert not preflight.COLLECTIVES.findall(train.as_text())
    for name in {"train", "evaluate"} & set(found):
        assert "f64" not in found[name][0] and not float64(found[name][1].as_text())
    assert lowered.count("stablehlo.convolution") == step.count("conv_general_dilated[")
    if "prune" in found:
        # Counts of weights are exact only so; there is one a ticket.
        assert set(float64(found["prune"][1].as_text())) <= {"", "1"}
