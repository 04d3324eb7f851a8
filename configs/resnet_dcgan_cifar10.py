"""ResNet-DCGAN on CIFAR-10: Table 1, Figure 6.

Variant: `configs/resnet_dcgan_cifar10.py:cpu` is scaled down to two CPU cores (`lotto_jax.config.two_cores`).
"""

from ml_collections import ConfigDict

from lotto_jax import config as base


def get_config(variant: str = "") -> ConfigDict:
    config = base.default()
    config.seeds = (0, 1, 2, 3, 4)
    config.dataset.name = "cifar10"
    config.model = {"name": "resnet_dcgan", "width": 128}
    config.objective = {"name": "adversarial", "loss": "hinge", "latent": 128}
    config.optimizer = {"name": "adam", "learning_rate": 2e-4, "b1": 0.0, "b2": 0.9}
    config.train.batch_size = 64
    config.train.epochs = 200
    config.imp.rounds = 20
    config.imp.fraction = 0.2
    config.imp.rewind_step = 10
    config.imp.pruned = ("both", "generator", "discriminator")
    config.imp.arms = ("winning", "random")
    config.metrics.names = ("frechet", "inception_score")
    if variant == "cpu":
        return base.two_cores(config, width=16, epochs=2, rounds=4, fraction=0.5)
    if variant:
        raise ValueError(f"{__name__} has no variant {variant!r}; it takes cpu.")
    return config
