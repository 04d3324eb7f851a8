"""A search small enough for tests: two seeds, two rounds, 22 steps each, on the bundled digits."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lotto_jax import config as base


def config(**fields) -> ConfigDict:
    """The tiny configuration with `section__field` keywords set."""
    tiny = base.default()
    tiny.seeds = (0, 1)
    tiny.model = {"name": "linear_autoencoder", "latent": 8}
    tiny.train.epochs = 2
    tiny.train.batch_size = 127  # a prime: no batch is split over devices, which takes longer to compile
    if fields.get("experiment", "imp") in ("imp", "prune_at_init", "table2"):
        tiny.imp.rounds = 2
    if fields.get("experiment", "imp") in ("imp", "one_shot", "table2"):
        tiny.imp.rewind_step = 3
    tiny.log_every = 1
    tiny.checkpoint.every_seconds = 0.0
    tiny.evaluation.images = 0  # pictures take time to compile and to draw; tests that look at them ask for some
    for name, value in fields.items():
        section, _, field = name.rpartition("__")
        setattr(tiny[section] if section else tiny, field, value)
    return tiny


def classifier(**fields) -> ConfigDict:
    """A classifier of digits, good enough to tell most of them."""
    chosen = {
        "seeds": (0,),
        "model": {"name": "resnet18", "width": 2},
        "objective": {"name": "classification", "flip": False, "shift": 1},
        "optimizer": {"name": "adam", "learning_rate": 2e-2},
        "train__batch_size": 63,  # odd: on one device, as tiny things are fastest
        "train__epochs": 6,
        "experiment": "dense",
        "checkpoint__every_seconds": 60.0,
    }
    return config(**(chosen | fields))


def assert_same(a, b):
    """Equal bit for bit, typed keys included."""
    unwrap = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(unwrap(x), unwrap(y)), a, b)
