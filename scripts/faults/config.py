"""The runs that faults are tried on: tiny searches on the bundled digits that save after every chunk of training."""

import numpy as np
from ml_collections import ConfigDict

from lotto_jax import config as base
from lotto_jax.metrics import Given, Metric

EXPERIMENTS = ("imp", "early_bird", "table2")


def psnr(given: Given) -> float:
    """Peak signal-to-noise ratio of the reconstructions, in dB: a metric that is measured of kept states."""
    error = np.mean((given.originals / 255.0 - given.reconstructions / 255.0) ** 2)
    return float(-10 * np.log10(error))


PSNR = Metric("psnr", ("originals", "reconstructions"), psnr, better="higher")


def get_config(experiment: str) -> ConfigDict:
    """The configuration of one of EXPERIMENTS."""
    config = base.default()
    config.experiment = experiment
    config.checkpoint.every_seconds = 0.0
    config.evaluation.images = 2
    config.log_every = 1
    if experiment == "imp":
        config.seeds = (0, 1)
        config.model = {"name": "linear_autoencoder", "latent": 8}
        config.train.epochs = 4
        config.evaluation.points = 5
        config.imp.rounds = 2
        config.imp.rewind_step = 3
        config.imp.one_shot_sparsities = (0.9,)
        config.metrics.names = ("scripts.faults.config:PSNR",)
        return config
    config.seeds = (0,)
    config.dataset.image_size = 16
    config.dataset.train_examples = 128
    config.model = {"name": "conv_autoencoder", "width": 4, "latent": 5}
    config.train.batch_size = 31  # odd: on one device, where tiny things compile fastest
    config.train.epochs = 4
    config.early_bird.interval = 2
    config.early_bird.lookback = 3
    config.early_bird.threshold = 0.5
    if experiment == "table2":
        config.early_bird.arms = ("early_bird",)
        config.imp.arms = ("winning", "snip")
        config.imp.rounds = 2
        config.imp.rewind_step = 3
        config.imp.fraction = 0.5
    return config
