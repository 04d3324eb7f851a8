"""SNGAN on CIFAR-10: Table 1, Figure 6.

Variant: `configs/sngan_cifar10.py:cpu` is scaled down to two CPU cores (`common.two_cores`).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    optimizer = {"name": "adam", "learning_rate": 2e-4, "b1": 0.0, "b2": 0.9}
    config = common.gan("cifar10", {"name": "sngan", "width": 64}, optimizer, loss="hinge")
    return common.choose(variant, config, cpu=common.cpu(width=16, epochs=3, rounds=4, fraction=0.5))
