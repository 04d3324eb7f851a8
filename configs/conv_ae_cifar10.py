"""Convolutional autoencoder on CIFAR-10: Table 1, Figure 4 (middle), Figure A.8.

Variants: `configs/conv_ae_cifar10.py:cpu` is scaled down to two CPU cores (`common.two_cores`); `:cpu_lamp` and
`:cpu_layerwise` prune it by LAMP scores, or as much of every layer, in place of pooled magnitudes.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    model = {"name": "conv_autoencoder", "latent": 200, "width": 64}
    config = common.autoencoder("cifar10", model, loss="mse")
    config.metrics.names = ("accuracy",)
    small = common.cpu(width=16, epochs=6, rounds=8, fraction=0.4, seeds=3)
    return common.choose(variant, config, cpu=small, **common.by_rules(small))
