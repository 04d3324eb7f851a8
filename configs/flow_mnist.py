"""Flow matching on MNIST, by the UNet of `ddpm_mnist.py`: rectified flow.

Variant: `configs/flow_mnist.py:cpu` is scaled down to two CPU cores (`common.denoiser`).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    model = {"name": "unet", "width": 64, "multipliers": (1, 2, 2), "attention": (14,)}
    objective = {"name": "flow_matching", "sampler": "heun", "sample_steps": 25, "ema": 0.9999}
    config, variants = common.denoiser("mnist", model, objective, 16, blocks=1, attention=(7,))
    config.train.epochs = 50
    return common.choose(variant, config, cpu=variants["cpu"])
