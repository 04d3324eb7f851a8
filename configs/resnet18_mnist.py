"""ResNet-18 classifier of MNIST: accuracy of reconstructions (section 3.2) and `fd_resnet18`.

Variant: `configs/resnet18_mnist.py:cpu` is scaled down to ten minutes on two CPU cores.
"""

from ml_collections import ConfigDict

from lotto_jax import config as base


def get_config(variant: str = "") -> ConfigDict:
    config = base.default()
    config.experiment = "dense"
    config.seeds = (0,)
    config.dataset.name = "mnist"
    config.model = {"name": "resnet18", "width": 64}
    config.objective = {"name": "classification", "shift": 2}
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    config.train.batch_size = 128
    config.train.epochs = 20
    config.train.schedule = "cosine"
    if variant == "cpu":
        config.model.width = 8
        config.objective.shift = 0
        config.train.epochs = 5
    elif variant:
        raise ValueError(f"{__name__} has no variant {variant!r}; it takes cpu.")
    return config
