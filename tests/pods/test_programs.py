"""Every network's programs, compiled for eight TPUs and eight GPUs."""

import re

import jax
import pytest
from jax.sharding import SingleDeviceSharding

from lotto_jax import pruning
from lotto_jax.cli import load_config
from lotto_jax.experiments import preflight, programs
from lotto_jax.models import layers

# Fields of the model: small widths, which shorten compiling, but the full ones of two networks.
NETWORKS: dict = {
    "linear_ae_mnist": {},
    "conv_ae_cifar10": {"width": 8},
    "vae_cifar10": {"width": 8},
    "resnet_vae_cifar10": {"width": 8},
    "dcgan_cifar10": {},
    "sngan_cifar10": {"width": 8},
    "resnet_dcgan_cifar10": {"width": 8},
    "resnet18_cifar10": {"width": 8},
}
KERNELS = re.compile(r" (?:fusion|custom-call)\(")
pytestmark = [
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),  # of ml_collections
    pytest.mark.timeout(900),
]


def config_of(name, tickets):
    config = load_config(f"configs/{name}.py", [])
    config.seeds = tuple(range(tickets))
    config.dataset.train_examples = 1000  # no data are needed then
    config.train.batch_size = 20
    config.train.epochs = 1
    config.evaluation.batch_size = 100
    config.metrics.names = ()
    if config.experiment == "imp":
        config.imp.rounds, config.imp.pruned, config.imp.arms = 1, ("both",), ("winning",)
        config.imp.one_shot_sparsities = ()
    with config.unlocked():
        config.model.update(NETWORKS[name])
    return config


def lowered(run, **wanted):
    """By name, the programs of a run; `wanted` are attributes of them."""
    assert run.placement.mesh.shape == {"ticket": 8, "data": 1}
    chosen = [p for p in programs.of(run) if all(getattr(p, key) == value for key, value in wanted.items())]
    return {program.name: program.lower() for program in chosen if program.name != "step"}


def float64(compiled):
    """Shapes of all float64 arrays of a compiled program."""
    return set(re.findall(r"\bf64\[([\d,]*)\]", compiled.as_text()))


@pytest.mark.parametrize("name", NETWORKS)
def test_tickets_on_devices_of_their_own(name, topology):
    """No device waits for another in a step, and what is compiled are the convolutions of accelerators, in float32."""
    with preflight.planned(config_of(name, 8), topology) as (run,):
        found = lowered(run)
        state = jax.eval_shape(run.objective.init, jax.random.key(0))
        mask = jax.eval_shape(pruning.ones, state.params)
        with layers.plain_lowering():
            step = jax.make_jaxpr(lambda *inputs: run.objective.step(*inputs))(state, mask, run.feed.batch, state.key)
    assert found["train"].as_text().count("stablehlo.convolution") == str(step).count("conv_general_dilated[")
    for program in ("train", "evaluate"):
        compiled = found[program].compile()
        assert not preflight.COLLECTIVES.findall(compiled.as_text())
        assert not float64(compiled) and "f64" not in found[program].as_text()
    if "prune" in found:  # a ticket's weights are counted in float64, which TPUs do not have
        counts = set() if topology.platform == "tpu" else {"", "1"}
        assert float64(found["prune"].compile()) <= counts


def test_tickets_that_share_devices_leave_none_out(topology):
    """Programs whose devices speak to each other have to have all of a TPU slice; batches of 3 tickets take 8."""
    with preflight.planned(config_of("linear_ae_mnist", 3), topology) as (run,):
        assert run.placement.mesh.shape == {"ticket": 4, "data": 2}
        chosen = [program for program in programs.of(run) if program.name in ("step", "train")]
        compiled = [program.lower().compile() for program in chosen]
    assert [program.split for program in chosen] == [2, 2]
    assert all("all-reduce" in preflight.COLLECTIVES.findall(one.as_text()) for one in compiled)


def test_a_second_ticket_on_a_device_takes_its_state_and_mask(topology):
    taken = {}
    for tickets in (8, 16):
        with preflight.planned(config_of("linear_ae_mnist", tickets), topology) as (run,):
            train = lowered(run, name="train")["train"].compile()
            taken[tickets] = train.memory_analysis().argument_size_in_bytes
            params = jax.eval_shape(run.objective.init, jax.random.key(0)).params
    kernels = sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim > 1)
    ticket = 3 * 4 * sum(leaf.size for leaf in jax.tree.leaves(params)) + kernels  # with Adam's moments
    assert ticket <= taken[16] - taken[8] <= 1.2 * ticket  # rows of a TPU's memory are filled up


@pytest.mark.parametrize(("name", "parallel"), [("linear_ae_mnist", "vmap"), ("conv_ae_cifar10", "sharded")])
def test_auto_shares_a_device_among_tickets_as_costs_least(name, parallel, topology):
    """A step of four tickets in the same operations against four steps of one: on a TPU by the compiler's estimate.

    A GPU's compiler has none. Its program shows that dense tickets share kernels, and that of several convolutions
    grouped ones become, the gradients of filters among them, for which cuDNN has no kernels of their own then.
    """
    compiled = {}
    with preflight.planned(config_of(name, 8), topology) as (run,):
        assert run.placement.parallel == parallel
        one = SingleDeviceSharding(topology.devices[0])
        state = jax.eval_shape(run.objective.init, jax.random.key(0))
        inputs = state, jax.eval_shape(pruning.ones, state.params), run.feed.batch, state.key
        for tickets in (1, 4):
            shape = lambda x, n=tickets: jax.ShapeDtypeStruct((n, *x.shape), x.dtype, sharding=one)  # noqa: E731
            stacked = jax.tree.map(shape, inputs)
            step = jax.jit(jax.vmap(lambda *one: run.objective.step(*one)))
            compiled[tickets] = step.lower(*stacked).compile()
    if topology.platform == "tpu":
        took = {tickets: preflight.estimated_seconds(program) for tickets, program in compiled.items()}
        assert (took[4] < 4 * took[1]) == (parallel == "vmap")
    else:
        texts = {tickets: program.as_text() for tickets, program in compiled.items()}
        kernels = {tickets: len(KERNELS.findall(text[text.index("ENTRY") :])) for tickets, text in texts.items()}
        assert kernels[4] < 1.2 * kernels[1]
        convolutions = texts[4].count('custom_call_target="__cudnn$conv')
        assert texts[4].count("feature_group_count=4") == convolutions and (convolutions > 0) == (parallel != "vmap")
        assert "__cudnn$convBackwardFilter" not in texts[4]
        assert ("__cudnn$convBackwardFilter" in texts[1]) == (parallel != "vmap")
