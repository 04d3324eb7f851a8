"""DDPM on MNIST: a UNet of half the width of CIFAR-10's on maps of 28, 14 and 7, cosine schedule, v prediction.

Variants: `configs/ddpm_mnist.py:cpu` is scaled down to two CPU cores (`common.denoiser`);
`configs/ddpm_mnist.py:early_bird` looks for early birds among the norm groups instead of masks of weights.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    model = {"name": "unet", "width": 64, "multipliers": (1, 2, 2), "attention": (14,)}
    objective = {"name": "diffusion", "schedule": "cosine", "prediction": "v", "ema": 0.9999}
    config, variants = common.denoiser("mnist", model, objective, 16, blocks=1, attention=(7,))
    config.train.epochs = 50
    return common.choose(variant, config, **variants)
