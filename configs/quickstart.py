"""Winning tickets of a linear autoencoder on the bundled 8x8 digits, in about half a minute on a laptop."""

from ml_collections import ConfigDict

from lotto_jax import config as base


def get_config() -> ConfigDict:
    config = base.default()
    config.seeds = (0, 1, 2)
    config.dataset.name = "digits"
    config.model = {"name": "linear_autoencoder", "latent": 24}
    config.train.batch_size = 64
    config.train.epochs = 60
    config.imp.rounds = 12
    config.imp.fraction = 0.3
    config.imp.rewind_step = 10
    config.imp.arms = ("winning", "random", "random_pruned")
    config.imp.one_shot_sparsities = (0.5, 0.8, 0.9, 0.95)
    return config
