"""ResNet-18 that tells CelebA's 40 attributes: accuracy of reconstructions (Figures A.2, A.3) and `fd_resnet18`.

Variant: `configs/resnet18_celeba.py:cpu` is scaled down to an hour on two CPU cores.
"""

from ml_collections import ConfigDict

from lotto_jax import config as base


def get_config(variant: str = "") -> ConfigDict:
    config = base.default()
    config.experiment = "dense"
    config.seeds = (0,)
    config.dataset.name = "celeb_a"
    config.dataset.image_size = 32  # as in the configurations of the networks that it looks at
    config.model = {"name": "resnet18", "width": 64}
    config.objective = {"name": "classification", "flip": True}
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    config.train.batch_size = 128
    config.train.epochs = 10
    config.train.schedule = "cosine"
    if variant == "cpu":
        config.model.width = 16
        config.train.epochs = 3
    elif variant:
        raise ValueError(f"{__name__} has no variant {variant!r}; it takes cpu.")
    return config
