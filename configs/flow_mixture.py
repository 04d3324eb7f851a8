"""Flow matching and diffusion of a Gaussian mixture in the plane: every arm, in minutes on a laptop.

Variants: `configs/flow_mixture.py:diffusion` trains the same network as a diffusion that predicts v;
`configs/flow_mixture.py:epsilon` as one that predicts the noise, whose samples fail: the cosine schedule leaves next to
no signal at its last step, and nothing clips points.
"""

from ml_collections import ConfigDict

from configs import common
from lotto_jax import config as base


def _diffusion(config: ConfigDict) -> ConfigDict:
    config.objective = {
        "name": "diffusion",
        "prediction": "v",
        "schedule": "cosine",
        "noise_steps": 200,
        "sample_steps": 50,
        "ema": 0.99,
    }
    return config


def _epsilon(config: ConfigDict) -> ConfigDict:
    config = _diffusion(config)
    del config.objective.prediction
    return config


def get_config(variant: str = "") -> ConfigDict:
    config = base.default()
    config.seeds = (0, 1, 2, 3, 4)
    config.dataset.name = "mixture"
    config.model = {"name": "mlp", "width": 64, "depth": 3}
    config.objective = {
        "name": "flow_matching",
        "sampler": "heun",
        "sample_steps": 25,
        "likelihood_steps": 25,
        "ema": 0.99,
    }
    config.optimizer = {"name": "adam", "learning_rate": 2e-3}
    config.train.batch_size = 128
    config.train.epochs = 60
    config.train.schedule = "cosine"
    config.evaluation.batch_size = 2_048
    config.imp.rounds = 12
    config.imp.fraction = 0.3
    config.imp.rewind_step = 100
    config.imp.arms = ("winning", "random", "random_pruned", "snip", "grasp")
    config.imp.one_shot_sparsities = (0.5, 0.8, 0.9, 0.95)
    config.evaluation.images = 0  # points are no pictures
    config.metrics.names = ("energy_distance",)
    config.metrics.samples = 2_000
    config.parallel.tickets = "vmap"
    return common.choose(variant, config, diffusion=_diffusion, epsilon=_epsilon)
