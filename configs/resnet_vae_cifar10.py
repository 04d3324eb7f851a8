"""ResNet-VAE on CIFAR-10: Table 1, Figure 5.

Variant: `configs/resnet_vae_cifar10.py:cpu` is scaled down to two CPU cores (`common.two_cores`).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    config = common.autoencoder("cifar10", {"name": "resnet_vae", "latent": 128, "width": 128}, beta=1.0)
    config.metrics.names = ("frechet", "accuracy")
    return common.choose(variant, config, cpu=common.cpu(width=16, epochs=3, rounds=4, fraction=0.5))
