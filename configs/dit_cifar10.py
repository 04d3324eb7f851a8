"""Flow matching on CIFAR-10 by DiT-S/2 (Peebles and Xie 2023) on pixels, without classes: 32.5 M params.

Variant: `configs/dit_cifar10.py:cpu` is scaled down to two CPU cores (`common.denoiser`).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    model = {"name": "dit", "width": 384, "depth": 12, "heads": 6, "patch": 2}
    objective = {"name": "flow_matching", "sampler": "heun", "sample_steps": 25, "ema": 0.9999}
    small = {"depth": 4, "heads": 4, "patch": 4}
    config, variants = common.denoiser("cifar10", model, objective, 64, **small)
    config.parallel.tickets = "sharded"  # the activations of one ticket fill half of a TPU v5e
    return common.choose(variant, config, cpu=variants["cpu"])
