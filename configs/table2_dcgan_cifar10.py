"""DCGAN on CIFAR-10 by every way to a smaller network: Table 2 and Figure 7.

Winning tickets, SNIP and GraSP are at the sparsities of the rounds, early-bird tickets at
`config.early_bird.compressions`. `config.metrics`, or `lotto-jax evaluate` later, measures the quality of samples.

Variant: `configs/table2_dcgan_cifar10.py:cpu` is scaled down to two CPU cores (`lotto_jax.config.two_cores`).
"""

from ml_collections import ConfigDict

from lotto_jax import config as base


def get_config(variant: str = "") -> ConfigDict:
    config = base.default()
    config.experiment = "table2"
    config.seeds = (0, 1, 2, 3, 4)
    config.dataset.name = "cifar10"
    config.model = {"name": "dcgan", "width": 64}
    config.objective = {"name": "adversarial", "loss": "bce", "latent": 128}
    config.optimizer = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5}
    config.train.batch_size = 64
    config.train.epochs = 200
    config.imp.rounds = 10
    config.imp.arms = ("winning", "snip", "grasp")
    config.early_bird.compressions = (0.2, 0.4, 0.6, 0.8, 0.9, 0.95)
    config.early_bird.arms = ("early_bird", "early_bird_mixed")
    config.metrics.names = ("frechet",)
    if variant == "cpu":
        config = base.two_cores(config, width=16, epochs=8, rounds=2, fraction=0.55)
        config.seeds = (0, 1, 2)
        config.dataset.train_examples = 5_000
        config.early_bird.compressions = (0.55, 0.8)
        config.early_bird.interval = 39  # half an epoch, so that five masks fit in the first half
        return config
    if variant:
        raise ValueError(f"{__name__} has no variant {variant!r}; it takes cpu.")
    return config
