"""Early-bird tickets of DCGAN on CIFAR-10: their rows of Table 2, and Figure 7.

Variant: `configs/table2_dcgan_cifar10.py:cpu` is scaled down to two CPU cores (`lotto_jax.config.two_cores`).
"""

from ml_collections import ConfigDict

from lotto_jax import config as base


def get_config(variant: str = "") -> ConfigDict:
    config = base.default()
    config.experiment = "early_bird"
    config.seeds = (0, 1, 2, 3, 4)
    config.dataset.name = "cifar10"
    config.model = {"name": "dcgan", "width": 64}
    config.objective = {"name": "adversarial", "loss": "bce", "latent": 128}
    config.optimizer = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5}
    config.train.batch_size = 64
    config.train.epochs = 200
    config.early_bird.compressions = (0.2, 0.4, 0.6, 0.8, 0.9, 0.95)
    config.early_bird.arms = ("dense", "early_bird", "early_bird_mixed")
    if variant == "cpu":
        config = base.two_cores(config, width=16, epochs=12, rounds=4, fraction=0.5)
        config.early_bird.compressions = (0.5, 0.8)
        return config
    if variant:
        raise ValueError(f"{__name__} has no variant {variant!r}; it takes cpu.")
    return config
