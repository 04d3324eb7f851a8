"""VAE on CelebA: Table 1, Figures 5 and A.7.

Variant: `configs/vae_celeba.py:cpu` is scaled down to two CPU cores (`common.two_cores`).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    config = common.autoencoder("celeb_a", {"name": "vae", "latent": 128, "width": 64}, beta=1.0)
    config.metrics.names = ("frechet", "accuracy")
    return common.choose(variant, config, cpu=common.cpu(width=16, epochs=4, rounds=5, fraction=0.45))
