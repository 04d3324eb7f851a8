"""A search small enough for tests: two seeds, two rounds, 22 steps each, on the bundled digits."""

from ml_collections import ConfigDict

from lotto_jax import config as base


def config(**fields) -> ConfigDict:
    """The tiny configuration with `section__field` keywords set."""
    tiny = base.default()
    tiny.seeds = (0, 1)
    tiny.model = {"name": "linear_autoencoder", "latent": 8}
    tiny.train.epochs = 2
    tiny.imp.rounds = 2
    tiny.imp.rewind_step = 3
    tiny.log_every = 1
    tiny.checkpoint.every_seconds = 0.0
    tiny.evaluation.images = 2
    for name, value in fields.items():
        section, _, field = name.rpartition("__")
        setattr(tiny[section] if section else tiny, field, value)
    return tiny
