"""ResNet-18 classifier of CIFAR-10: accuracy of reconstructions (Figures A.2, A.3) and `fd_resnet18`.

Variant: `configs/resnet18_cifar10.py:cpu` is scaled down to half an hour on two CPU cores.
"""

from ml_collections import ConfigDict

from lotto_jax import config as base


def get_config(variant: str = "") -> ConfigDict:
    config = base.default()
    config.experiment = "dense"
    config.seeds = (0,)
    config.dataset.name = "cifar10"
    config.model = {"name": "resnet18", "width": 64}
    config.objective = {"name": "classification", "flip": True, "shift": 4}
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    config.train.batch_size = 128
    config.train.epochs = 60
    config.train.schedule = "cosine"
    if variant == "cpu":
        config.model.width = 16
        config.objective.shift = 0
        config.train.epochs = 7
    elif variant:
        raise ValueError(f"{__name__} has no variant {variant!r}; it takes cpu.")
    return config
