"""Structured pruning of one network by this library and by torch-pruning; runs in .venv-parity, prints a JSON object.

`python structured_torch.py NETWORK` takes a network of `vision_networks.NETWORKS` at full size.
"""

import copy
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_pruning
import torchvision

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lotto_jax import pruning
from lotto_jax.metrics import flops
from lotto_jax.pruning import compaction, dependency
from lotto_jax.pruning.channels import ChannelMask
from scripts.benchmarks import torch_unet, vision_networks

Leaf = tuple[str, int]


def randomized(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The module in inference mode with no leaf constant, so that nothing holds because of a friendly start."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, leaf in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith(("running_var", "layer_scale")):
                leaf.copy_(0.5 + torch.rand(leaf.shape, generator=draw))
            elif leaf.is_floating_point() and (leaf.ndim < 2 or not leaf.any()):
                leaf.add_(0.1 * torch.randn(leaf.shape, generator=draw))
    return model.eval()


def state(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """The state dict as JAX takes it, without counters."""
    return {name: leaf.numpy() for name, leaf in model.state_dict().items() if leaf.is_floating_point()}


def graph_of(model: torch.nn.Module, inputs: tuple) -> torch_pruning.DependencyGraph:
    """torch-pruning's dependency graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says which parameters of no layer it found
        return torch_pruning.DependencyGraph().build_dependency(model, inputs)


def touched(graph: torch_pruning.DependencyGraph, group: torch_pruning.dependency.Group) -> set[Leaf]:
    """The axes of params and statistics that a group of torch-pruning lies in."""
    names: dict[object, str] = {module: name for name, module in graph.model.named_modules()}
    names |= {leaf: name for name, leaf in graph.model.named_parameters()}
    axes: set[Leaf] = set()
    for dep, _ in group:
        module = dep.target.module
        name = names.get(module, "")
        if isinstance(module, torch.nn.Parameter):
            axes.add((name, max(a for a, n in enumerate(module.shape) if n > 1)))
        elif isinstance(module, torch.nn.MultiheadAttention):
            axes |= {(f"{name}.{own}", 0) for own in ("in_proj_weight", "in_proj_bias")} | {
                (f"{name}.in_proj_weight", 1)
            }
            axes |= {(f"{name}.out_proj.{own}", 0) for own in ("weight", "bias")} | {(f"{name}.out_proj.weight", 1)}
        elif name:
            makes = graph.is_out_channel_pruning_fn(dep.handler)
            leaves = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            for own, leaf in leaves:
                if leaf.ndim and (makes or leaf.ndim > 1):
                    axes.add((f"{name}.{own}", 0 if makes else 1))
    return axes


def macs(model: torch.nn.Module, inputs: tuple) -> int:
    """Multiply-adds of convolutions and dense layers, of torch-pruning's count."""
    layers = torch_pruning.utils.count_ops_and_params(model, inputs, layer_wise=True)[2]
    total = 0
    for module, count in layers.items():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and count:
            terms = module.weight[0].numel()
            # A bias counts as one more term of each output of a convolution, and once for a dense layer.
            if module.bias is None:
                total += count
            elif isinstance(module, torch.nn.Conv2d):
                total += count * terms // (terms + 1)
            else:
                total += count - module.out_features
        elif isinstance(module, torch.nn.MultiheadAttention):
            total += count
    return int(total)


def smallest(groups: dependency.AxisGroups, params: dict[str, np.ndarray], share: float) -> ChannelMask:
    """A group mask that removes the share of the channels of each group that have the least L2 magnitude."""
    mask: ChannelMask = {}
    for name, score in pruning.channel_scores(groups, params).items():
        keep = np.ones(score.size, bool)
        keep[np.argsort(score)[: round(share * score.size)]] = False
        mask[name] = jnp.asarray(keep)
    return mask


def difference(a: Any, b: Any) -> float:
    """The largest absolute difference of two arrays, relative to the largest entry of the second."""
    return float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max())


class LayerNorm(torch.nn.Module):
    """A layer norm of fewer channels that divides by the number there was, as where the others are zero."""

    def __init__(self, norm: torch.nn.LayerNorm, count: int, dim: int) -> None:
        super().__init__()
        self.norm, self.count, self.dim = norm, count, dim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` of any rank, its channels last or, for torchvision's LayerNorm2d, second."""
        x = x.movedim(self.dim, -1)
        mean = x.sum(-1, keepdim=True) / self.count
        variance = (x * x).sum(-1, keepdim=True) / self.count - mean**2
        y = (x - mean) / torch.sqrt(variance + self.norm.eps) * self.norm.weight + self.norm.bias
        return y.movedim(-1, self.dim)


def remove(model: torch.nn.Module, inputs: tuple, roots: list, kept: dict[Leaf, np.ndarray]) -> torch.nn.Module:
    """A copy of the module without the outputs of some layers that `kept` lacks, removed by torch-pruning.

    torch-pruning leaves the number of norm groups as it is; here it becomes that of the norm groups that are left.

    Args:
      model: the module.
      inputs: of the module.
      roots: `(name, pruning function)` of the layers that groups of torch-pruning start from.
      kept: of `pruning.Compacted`.
    """
    pruned = copy.deepcopy(model)
    graph = graph_of(pruned, inputs)
    for name, prune in roots:
        module, leaf = pruned.get_submodule(name), (f"{name}.weight", 0)
        if leaf in kept:
            gone = np.setdiff1d(np.arange(module.weight.shape[0]), kept[leaf])
            graph.get_pruning_group(module, prune, gone.tolist()).prune()
    for name, module in pruned.named_modules():
        if isinstance(module, torch.nn.GroupNorm):
            before = model.get_submodule(name)
            module.num_groups = module.num_channels * before.num_groups // before.num_channels
    return pruned


def with_counts(pruned: torch.nn.Module, model: torch.nn.Module) -> torch.nn.Module:
    """A copy whose layer norms of fewer channels than in `model` divide by the number that these have there."""
    result = copy.deepcopy(pruned)
    for name, norm in list(result.named_modules()):
        if isinstance(norm, torch.nn.LayerNorm):
            count, dim = model.get_submodule(name).weight.numel(), -3 if "2d" in type(norm).__name__ else -1
            parent, _, field = name.rpartition(".")
            setattr(result.get_submodule(parent), field, LayerNorm(norm, count, dim))
    return result


def compare(fn: Callable, model: torch.nn.Module, inputs: tuple, share: float, repeats: int = 0) -> dict[str, float]:
    """Groups, sizes and outputs of a network pruned by both.

    First this library removes the share of every group that it finds. Then both remove the same channels, of the groups
    of torch-pruning that lie in groups of this library; the numbers of these begin with `same_` and `torch_`.

    Args:
      fn: the network as a function of the state dict of `model`.
      model: the PyTorch module.
      inputs: of both, as tensors.
      share: of the channels of each group, those of least L2 magnitude.
      repeats: how often groups and graph are built anew to time them, in CPU seconds, which depend least on what else
        the machine does.
    """
    params, arrays = state(model), tuple(x.numpy() for x in inputs)
    groups, graph = pruning.axis_groups(fn, params, *arrays), graph_of(model, inputs)
    last = [m for m in model.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)][-1]
    theirs = list(graph.get_all_groups(ignored_layers=[last]))
    calls = {
        "seconds": lambda: pruning.axis_groups(fn, params, *arrays),
        "torch_seconds": lambda: graph_of(model, inputs),
        "torch_groups_seconds": lambda: list(graph_of(model, inputs).get_all_groups(ignored_layers=[last])),
    }
    times: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(repeats):
        for key, call in calls.items():
            start = time.process_time()
            call()
            times[key].append(time.process_time() - start)
    result: dict[str, float] = {key: statistics.median(seconds) for key, seconds in times.items() if seconds}
    result["groups"], result["torch_groups"] = len(groups.prunable), len(theirs)
    axes = set().union(*(g.axes for g in groups.prunable))
    result["torch_axes_only"] = len(set().union(*(touched(graph, group) for group in theirs)) - axes)
    result["channels"] = sum(g.size for g in groups.prunable)
    result["torch_channels"] = sum(len(group[0].idxs) for group in theirs)
    result["dense_params"] = sum(p.numel() for p in model.parameters())
    result["dense_flops"] = flops.count(fn, params, *arrays, padding=True).matmul
    result["torch_dense_flops"] = 2 * macs(model, inputs)

    masked = jax.jit(lambda params, mask, *xs: fn(pruning.mask_channels(groups, params, mask), *xs))
    everything = {name: np.ones(group.size, bool) for name, group in groups.named.items()}

    def compacted(prefix: str, mask: ChannelMask) -> tuple[compaction.Compacted, Any]:
        small = pruning.compact(fn, params, mask, *arrays)
        run, expected = small.resized(fn), masked(params, {**everything, **mask}, *arrays)
        result[f"{prefix}removed"] = sum(int((~keep).sum()) for keep in small.mask.values())
        result[f"{prefix}params"] = sum(small.variables[name].size for name, _ in model.named_parameters())
        result[f"{prefix}flops"] = flops.count(run, small.variables, *arrays, padding=True).matmul
        result[f"{prefix}error"] = difference(jax.jit(run)(small.variables, *arrays), expected)
        return small, expected

    mask = smallest(groups, params, share)
    small, expected = compacted("", mask)
    names = {module: name for name, module in model.named_modules()}
    roots, shared = [], set()
    for group in theirs:
        root = names[group[0].dep.target.module]
        own = {name: g for name, g in groups.named.items() if (f"{root}.weight", 0) in g.axes}
        if touched(graph, group) <= set().union(*(g.axes for g in own.values())):
            roots.append((root, group[0].dep.handler))
            shared |= set(own)
    result["same_groups"] = len(roots)
    if shared == set(mask):
        result |= {f"same_{key}": result[key] for key in ("removed", "params", "flops", "error")}
    else:
        small, expected = compacted("same_", {name: mask[name] for name in shared})
    pruned = remove(model, inputs, roots, small.kept)
    result["torch_params"] = sum(p.numel() for p in pruned.parameters())
    result["torch_flops"] = 2 * macs(pruned, inputs)
    result["other_shapes"] = sum(leaf.shape != small.variables[name].shape for name, leaf in state(pruned).items())
    with torch.no_grad():
        result["torch_error"] = difference(pruned(*inputs), expected)
        result["torch_error_with_counts"] = difference(with_counts(pruned, model)(*inputs), expected)
    return result


def full_size(name: str) -> tuple[torch.nn.Module, tuple]:
    """A network and inputs of the size that it is published for."""
    torch.manual_seed(0)
    if name == "unet":
        return randomized(torch_unet.UNet()), (torch.randn(1, 3, 32, 32), torch.tensor([300.0]))
    return randomized(getattr(torchvision.models, name)()), (torch.randn(1, 3, 224, 224),)


if __name__ == "__main__":
    torch.set_num_threads(1)  # threads that wait for each other would count as CPU time
    print(json.dumps(compare(vision_networks.NETWORKS[sys.argv[1]], *full_size(sys.argv[1]), share=0.25, repeats=5)))
