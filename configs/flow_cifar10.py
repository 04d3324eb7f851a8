"""Flow matching on CIFAR-10, by the UNet of `ddpm_cifar10.py`: rectified flow.

Variant: `configs/flow_cifar10.py:cpu` is scaled down to two CPU cores (`common.denoiser`).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    model = {"name": "unet", "width": 128, "dropout": 0.1}
    objective = {"name": "flow_matching", "sampler": "heun", "sample_steps": 25, "ema": 0.9999}
    small = {"multipliers": (1, 2, 2), "blocks": 1, "attention": (8,), "dropout": 0.0}
    config, variants = common.denoiser("cifar10", model, objective, 16, **small)
    return common.choose(variant, config, cpu=variants["cpu"])
