"""Beta-VAE on CIFAR-10: Table 1, Figure 5.

Variant: `configs/beta_vae_cifar10.py:cpu` is scaled down to two CPU cores (`lotto_jax.config.two_cores`).
"""

from ml_collections import ConfigDict

from lotto_jax import config as base


def get_config(variant: str = "") -> ConfigDict:
    config = base.default()
    config.seeds = (0, 1, 2, 3, 4)
    config.dataset.name = "cifar10"
    config.model = {"name": "vae", "latent": 128, "width": 64}
    config.objective = {"name": "elbo", "beta": 4.0}
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    config.train.batch_size = 128
    config.train.epochs = 50
    config.imp.rounds = 20
    config.imp.fraction = 0.2
    config.imp.rewind_step = 10
    config.imp.pruned = ("both", "encoder", "decoder")
    config.imp.arms = ("winning", "random")
    config.metrics.names = ("frechet", "accuracy")
    if variant == "cpu":
        return base.two_cores(config, width=16, epochs=4, rounds=5, fraction=0.45)
    if variant:
        raise ValueError(f"{__name__} has no variant {variant!r}; it takes cpu.")
    return config
