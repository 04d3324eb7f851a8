"""Wasserstein GAN on CIFAR-10: Table 1, Figure 6.

Variants: `configs/wgan_cifar10.py:cpu` is scaled down to two CPU cores (`common.two_cores`);
`:cpu_lamp` and `:cpu_layerwise` prune it by LAMP scores, or as much of every layer, in place of pooled magnitudes;
`configs/wgan_cifar10.py:gp` has a gradient penalty in place of clipped weights (Gulrajani et al. 2017).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    return common.wgan("cifar10", variant)
