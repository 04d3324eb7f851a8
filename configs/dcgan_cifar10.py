"""DCGAN on CIFAR-10: Table 1, Figures 3, 6 and A.6.

Variants: `configs/dcgan_cifar10.py:rewind0` rewinds to initialization (Figure 3, right);
`configs/dcgan_cifar10.py:cpu` is scaled down to two CPU cores (`common.two_cores`).
"""

from ml_collections import ConfigDict

from configs import common


def _rewind0(config: ConfigDict) -> ConfigDict:
    config.imp.rewind_step = 0
    config.imp.pruned = ("both",)
    config.imp.arms = ("winning",)
    return config


def get_config(variant: str = "") -> ConfigDict:
    optimizer = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5}
    config = common.gan("cifar10", {"name": "dcgan", "width": 64}, optimizer, loss="bce")
    return common.choose(variant, config, cpu=common.cpu(width=16, epochs=4, rounds=4, fraction=0.5), rewind0=_rewind0)
