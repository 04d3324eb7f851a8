"""Flow matching and diffusion of the bundled 8x8 digits by a small UNet.

Variants: `configs/flow_digits.py:diffusion` trains the same network as a diffusion; `configs/flow_digits.py:early_bird`
looks for early birds among its norm groups.
"""

from ml_collections import ConfigDict

from configs import common
from lotto_jax import config as base


def _diffusion(config: ConfigDict) -> ConfigDict:
    config.objective = {"name": "diffusion", "prediction": "v", "schedule": "cosine", "sample_steps": 50, "ema": 0.99}
    return config


def _early_bird(config: ConfigDict) -> ConfigDict:
    config.experiment = "early_bird"
    config.early_bird.compressions = (0.3, 0.5)
    config.imp = base.default().imp
    return config


def get_config(variant: str = "") -> ConfigDict:
    config = base.default()
    config.seeds = (0, 1, 2, 3, 4)
    config.dataset.name = "digits"
    config.model = {"name": "unet", "width": 16, "multipliers": (1, 2), "blocks": 1, "attention": (), "groups": 8}
    config.objective = {"name": "flow_matching", "sampler": "heun", "sample_steps": 25, "ema": 0.99}
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    config.train.batch_size = 64
    config.train.epochs = 40
    config.train.schedule = "cosine"
    config.imp.rounds = 5
    config.imp.fraction = 0.5
    config.imp.rewind_step = 20
    config.metrics.names = ("energy_distance",)
    config.metrics.samples = 500
    return common.choose(variant, config, diffusion=_diffusion, early_bird=_early_bird)
