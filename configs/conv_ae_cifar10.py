"""Convolutional autoencoder on CIFAR-10: Table 1, Figure 4 (middle), Figure A.8.

Variant: `configs/conv_ae_cifar10.py:cpu` is scaled down to two CPU cores (`common.two_cores`).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    model = {"name": "conv_autoencoder", "latent": 200, "width": 64}
    config = common.autoencoder("cifar10", model, loss="mse")
    config.metrics.names = ("accuracy",)
    return common.choose(variant, config, cpu=common.cpu(width=16, epochs=6, rounds=8, fraction=0.4, seeds=3))
