"""Wasserstein GAN on CIFAR-10: Table 1, Figure 6.

Variants: `configs/wgan_cifar10.py:cpu` is scaled down to two CPU cores (`lotto_jax.config.two_cores`);
`configs/wgan_cifar10.py:gp` has a gradient penalty in place of clipped weights (Gulrajani et al. 2017).
"""

from ml_collections import ConfigDict

from lotto_jax import config as base


def get_config(variant: str = "") -> ConfigDict:
    config = base.default()
    config.seeds = (0, 1, 2, 3, 4)
    config.dataset.name = "cifar10"
    config.model = {"name": "dcgan", "width": 64}
    config.objective = {
        "name": "adversarial",
        "loss": "wasserstein",
        "latent": 128,
        "critic_steps": 5,
        "weight_clip": 0.01,
    }
    config.optimizer = {"name": "rmsprop", "learning_rate": 5e-5}
    config.train.batch_size = 320  # 5 critic steps of 64
    config.train.epochs = 200
    config.imp.rounds = 20
    config.imp.fraction = 0.2
    config.imp.rewind_step = 10
    config.imp.pruned = ("both", "generator", "discriminator")
    config.imp.arms = ("winning", "random")
    config.metrics.names = ("frechet", "inception_score")
    if variant == "cpu":
        # Weights clipped to 0.01 are smaller than the generator's: half of all at once would be the whole critic.
        return base.two_cores(config, width=16, epochs=8, rounds=4, fraction=0.2)
    if variant == "gp":
        config.model.batch_norm = False
        del config.objective.weight_clip
        config.objective.gradient_penalty_weight = 10.0
        config.optimizer = {"name": "adam", "learning_rate": 1e-4, "b1": 0.0, "b2": 0.9}
        return config
    if variant:
        raise ValueError(f"{__name__} has no variant {variant!r}; it takes cpu or gp.")
    return config
