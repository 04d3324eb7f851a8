"""Linear autoencoder on MNIST: first row of Table 1, Figure 4 (left), Figure A.8 (MNIST).

Variants: `configs/linear_ae_mnist.py:rewind0` rewinds to initialization instead (Figure 3, right);
`configs/linear_ae_mnist.py:cpu` is scaled down to two CPU cores (`lotto_jax.config.two_cores`).
"""

from ml_collections import ConfigDict

from lotto_jax import config as base


def get_config(variant: str = "") -> ConfigDict:
    config = base.default()
    config.seeds = (0, 1, 2, 3, 4)
    config.dataset.name = "mnist"
    config.model = {"name": "linear_autoencoder", "latent": 128}
    config.objective = {"name": "reconstruction"}
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    config.train.batch_size = 128
    config.train.epochs = 10
    config.imp.rounds = 20
    config.imp.fraction = 0.2
    config.imp.rewind_step = 10
    config.imp.pruned = ("both", "encoder", "decoder")
    config.imp.arms = ("winning", "random")
    config.imp.one_shot_sparsities = (0.5, 0.75, 0.85, 0.9, 0.95, 0.99)
    if variant == "rewind0":
        config.imp.rewind_step = 0
        config.imp.pruned = ("both",)
        config.imp.arms = ("winning",)
        config.imp.one_shot_sparsities = ()
    elif variant == "cpu":
        config = base.two_cores(config, epochs=10, rounds=10, fraction=0.36)
        config.imp.one_shot_sparsities = ()
    elif variant:
        raise ValueError(f"{__name__} has no variant {variant!r}; it takes cpu or rewind0.")
    return config
