"""ResNet-VAE on CelebA: Table 1, Figure 5.

Variant: `configs/resnet_vae_celeba.py:cpu` is scaled down to two CPU cores (`lotto_jax.config.two_cores`).
"""

from ml_collections import ConfigDict

from lotto_jax import config as base


def get_config(variant: str = "") -> ConfigDict:
    config = base.default()
    config.seeds = (0, 1, 2, 3, 4)
    config.dataset.name = "celeb_a"
    config.dataset.image_size = 32  # 64 is the other size of the networks
    config.model = {"name": "resnet_vae", "latent": 128, "width": 128}
    config.objective = {"name": "elbo", "beta": 1.0}
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
        return base.two_cores(config, width=16, epochs=3, rounds=4, fraction=0.5)
    if variant:
        raise ValueError(f"{__name__} has no variant {variant!r}; it takes cpu.")
    return config
