"""DCGAN on CelebA: Table 1, Figures A.1 and A.6.

Variant: `configs/dcgan_celeba.py:cpu` is scaled down to two CPU cores (`common.two_cores`).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    optimizer = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5}
    config = common.gan("celeb_a", {"name": "dcgan", "width": 64}, optimizer, loss="bce")
    return common.choose(variant, config, cpu=common.cpu(width=16, epochs=4, rounds=4, fraction=0.5))
