"""Removing the same channels of a ResNet-18 with torch-pruning and by compaction leaves the same network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lotto_jax.pruning import channels, compaction
from tests.pruning.networks import ResNet18, images, linen

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
tp = pytest.importorskip("torch_pruning")

STAGES = (8, 12, 16, 20)


def torch_resnet18():
    """torchvision's ResNet-18 with narrow stages and a 3x3/1 stem, as the Flax one."""
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1 = torch.nn.Conv2d(3, STAGES[0], 3, 1, 1, bias=False)
    model.bn1 = torch.nn.BatchNorm2d(STAGES[0])
    before = STAGES[0]
    for i, width in enumerate(STAGES):
        stride = 1 if i == 0 else 2
        down = None
        if i > 0:
            down = torch.nn.Sequential(
                torch.nn.Conv2d(before, width, 1, stride, bias=False), torch.nn.BatchNorm2d(width)
            )
        block = torchvision.models.resnet.BasicBlock
        layer = torch.nn.Sequential(block(before, width, stride, down), block(width, width))
        setattr(model, f"layer{i + 1}", layer)
        before = width
    model.fc = torch.nn.Linear(STAGES[-1], 10)
    return model.eval()


def torch_names(i: int, b: int) -> dict[str, str]:
    head = f"layer{i + 1}.{b}"
    return {
        f"s{i}b{b}_conv1": f"{head}.conv1",
        f"s{i}b{b}_bn1": f"{head}.bn1",
        f"s{i}b{b}_conv2": f"{head}.conv2",
        f"s{i}b{b}_bn2": f"{head}.bn2",
        f"s{i}b{b}_down": f"{head}.downsample.0",
        f"s{i}b{b}_downbn": f"{head}.downsample.1",
    }


NAMES = {"stem": "conv1", "stem_bn": "bn1", "head": "fc"} | {
    ours: theirs for i in range(4) for b in range(2) for ours, theirs in torch_names(i, b).items()
}


def load(model, variables) -> None:
    """Copy the Flax weights, so that outputs can be compared as well as counts."""
    modules = dict(model.named_modules())
    with torch.no_grad():
        for ours, leaves in variables["params"].items():
            module = modules[NAMES[ours]]
            if ours == "head":
                module.weight.copy_(torch.from_numpy(np.array(leaves["kernel"]).T.copy()))
                module.bias.copy_(torch.from_numpy(np.array(leaves["bias"])))
            elif "kernel" in leaves:
                module.weight.copy_(torch.from_numpy(np.array(leaves["kernel"]).transpose(3, 2, 0, 1).copy()))
            else:
                stats = variables["batch_stats"][ours]
                module.weight.copy_(torch.from_numpy(np.array(leaves["scale"])))
                module.bias.copy_(torch.from_numpy(np.array(leaves["bias"])))
                module.running_mean.copy_(torch.from_numpy(np.array(stats["mean"])))
                module.running_var.copy_(torch.from_numpy(np.array(stats["var"])))


def test_removed_counts_and_outputs_agree():
    network = linen(ResNet18(stages=STAGES), images(3, 32))
    scales = channels.batch_norm_scales(network.variables["params"])
    rng = np.random.default_rng(0)
    mask = {k: jnp.asarray(rng.random(v.shape) > 0.4).at[0].set(True) for k, v in scales.items()}
    # A residual sum loses the channels that all of its members lose.
    stages = {
        0: ("stem_bn", "s0b0_bn2", "s0b1_bn2"),
        1: ("s1b0_bn2", "s1b0_downbn", "s1b1_bn2"),
        2: ("s2b0_bn2", "s2b0_downbn", "s2b1_bn2"),
        3: ("s3b0_bn2", "s3b0_downbn", "s3b1_bn2"),
    }
    for members in stages.values():
        for name in members[1:]:
            mask[f"{name}/scale"] = mask[f"{members[0]}/scale"]
    variables = {
        **network.variables,
        "params": channels.apply_channel_mask(network.variables["params"], mask),
    }
    small = compaction.compact(network.fn, variables, mask, *network.inputs)
    assert not small.left

    model = torch_resnet18()
    load(model, variables)
    image = torch.from_numpy(np.array(network.inputs[0]).transpose(0, 3, 1, 2).copy())
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=image)
    roots = [members[0] for members in stages.values()]
    roots += [f"s{i}b{b}_bn1" for i in range(4) for b in range(2)]
    for root in roots:
        gone = np.flatnonzero(~np.asarray(mask[f"{root}/scale"])).tolist()
        module = model.get_submodule(NAMES[root])
        graph.get_pruning_group(module, tp.prune_batchnorm_out_channels, idxs=gone).prune()

    for ours, leaves in small.variables["params"].items():
        weight = model.get_submodule(NAMES[ours]).weight
        if "kernel" in leaves:
            order = (1, 0) if ours == "head" else (3, 2, 0, 1)
            assert tuple(weight.shape) == tuple(np.array(leaves["kernel"].shape)[list(order)]), ours
        else:
            assert weight.shape[0] == leaves["scale"].shape[0], ours
    removed = sum(p.numel() for p in torch_resnet18().parameters()) - sum(p.numel() for p in model.parameters())
    count = lambda v: sum(x.size for x in jax.tree.leaves(v["params"]))  # noqa: E731
    assert removed == count(variables) - count(small.variables) > 0
    with torch.no_grad():
        theirs = model(image).numpy()
    ours = network.rebuild(small.variables)(small.variables, *network.inputs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
