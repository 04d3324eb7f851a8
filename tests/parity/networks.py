"""Loads Flax variables into the PyTorch twins of scripts/benchmarks/torch_networks.py, and back."""

import jax
import numpy as np
import torch


def _to_torch(module, name, value):
    value = np.asarray(value)
    if name != "kernel":
        return value
    if isinstance(module, torch.nn.Linear):
        return value.T
    if isinstance(module, torch.nn.ConvTranspose2d):  # Flax's kernel is not mirrored
        return value[::-1, ::-1].transpose(2, 3, 0, 1)
    return value.transpose(3, 2, 0, 1)


NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def parameters(model, tree, path=()):
    """Pairs of a torch parameter and the Flax leaf it stands for, in the torch layout."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from parameters(model, value, (*path, key))
            continue
        module = model.get_submodule(".".join(path))
        name = NAMES[key]
        parameter = getattr(module, f"{name}_orig") if hasattr(module, f"{name}_orig") else getattr(module, name)
        yield "/".join((*path, key)), parameter, torch.tensor(np.array(_to_torch(module, key, value)))


def load(model, params, spectral=None):
    """Copy params, and the power-iteration vectors of `spectral_stats`, into the torch model."""
    pairs = list(parameters(model, params))
    assert len(pairs) == len(list(model.parameters()))
    with torch.no_grad():
        for _, parameter, value in pairs:
            parameter.copy_(value)
        for path, u in jax.tree_util.tree_leaves_with_path(spectral or {}):
            *scopes, variable = [k.key for k in path]
            if variable.endswith("/u"):
                module = model.get_submodule(".".join((*scopes[:-1], variable.split("/")[0])))
                module.weight_u.copy_(torch.tensor(np.array(u[0])))
    return model


def nchw(image):
    """A batch of images as PyTorch takes them."""
    return torch.tensor(np.asarray(image, np.float32).transpose(0, 3, 1, 2).copy())
