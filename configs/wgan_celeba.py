"""Wasserstein GAN on CelebA: Table 1, Figure A.1.

Variants: `configs/wgan_celeba.py:cpu` is scaled down to two CPU cores (`common.two_cores`);
`:cpu_lamp` and `:cpu_layerwise` prune it by LAMP scores, or as much of every layer, in place of pooled magnitudes;
`configs/wgan_celeba.py:gp` has a gradient penalty in place of clipped weights (Gulrajani et al. 2017).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    return common.wgan("celeb_a", variant)
