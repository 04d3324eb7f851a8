"""DDPM on CIFAR-10: the UNet of Ho et al. (2020), 35.7 M params, with their linear schedule.

They train for 800,000 steps, which are 2,048 epochs; here every ticket has 200.

Variants: `configs/ddpm_cifar10.py:cpu` is scaled down to two CPU cores (`common.denoiser`);
`configs/ddpm_cifar10.py:early_bird` looks for early birds among the norm groups instead of masks of weights.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    model = {"name": "unet", "width": 128, "dropout": 0.1}
    objective = {"name": "diffusion", "schedule": "linear", "ema": 0.9999}
    small = {"multipliers": (1, 2, 2), "blocks": 1, "attention": (8,), "dropout": 0.0}
    config, variants = common.denoiser("cifar10", model, objective, 16, **small)
    return common.choose(variant, config, **variants)
