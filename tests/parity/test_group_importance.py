"""Group magnitude is torch-pruning's, up to the root, and whole groups of its pruned network have our shapes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax.pruning import axis_groups, channel_scores
from tests.pruning.networks import randomize

torch = pytest.importorskip("torch")
tp = pytest.importorskip("torch_pruning")


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(True, name="norm")(nn.Conv(8, (3, 3), use_bias=False, name="first")(x)))
        x = nn.relu(nn.Conv(6, (3, 3), use_bias=False, name="second")(x))
        return nn.Dense(3, use_bias=False, name="head")(x.mean((1, 2)))


class TorchNetwork(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm2d(8)
        self.second = torch.nn.Conv2d(8, 6, 3, padding=1, bias=False)
        self.head = torch.nn.Linear(6, 3, bias=False)

    def forward(self, x):
        x = torch.relu(self.second(torch.relu(self.norm(self.first(x)))))
        return self.head(x.mean((2, 3)))


def test_group_magnitude_agrees():
    model, x = Network(), jnp.zeros((1, 8, 8, 3))
    variables = randomize(jax.eval_shape(model.init, jax.random.key(0), x))
    params = variables["params"]
    theirs = TorchNetwork().eval()
    with torch.no_grad():
        for name in ("first", "second"):
            weight = np.array(params[name]["kernel"]).transpose(3, 2, 0, 1).copy()
            getattr(theirs, name).weight.copy_(torch.from_numpy(weight))
        theirs.head.weight.copy_(torch.from_numpy(np.array(params["head"]["kernel"]).T.copy()))
        # torch-pruning counts the scale of a norm and not its shift.
        theirs.norm.weight.copy_(torch.from_numpy(np.array(params["norm"]["scale"])))
    params["norm"]["bias"] = jnp.zeros(8)

    groups = axis_groups(model.apply, variables, x)
    scores = channel_scores(groups, variables)
    importance = tp.importance.GroupMagnitudeImportance(p=2, group_reduction="sum", normalizer=None)
    graph = tp.DependencyGraph().build_dependency(theirs, torch.zeros(1, 3, 8, 8))
    for layer, leaf in (("first", "params/first/kernel"), ("second", "params/second/kernel")):
        module = getattr(theirs, layer)
        group = graph.get_pruning_group(module, tp.prune_conv_out_channels, list(range(module.out_channels)))
        (name,) = [name for name, own in groups.named.items() if (leaf, 3) in own.axes]
        np.testing.assert_allclose(scores[name] ** 2, importance(group).numpy(), rtol=1e-4)
