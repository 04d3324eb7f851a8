"""DCGAN on CIFAR-10 by every way to a smaller network: Table 2 and Figure 7.

Winning tickets, SNIP and GraSP are at the sparsities of the rounds, early-bird tickets at
`config.early_bird.compressions`. `config.metrics`, or `lotto-jax evaluate` later, measures the quality of samples.

Variant: `configs/table2_dcgan_cifar10.py:cpu` is scaled down to two CPU cores (`common.two_cores`).
"""

from ml_collections import ConfigDict

from configs import common


def _cpu(config: ConfigDict) -> ConfigDict:
    config = common.two_cores(config, width=16, epochs=8, rounds=2, fraction=0.55, seeds=3)
    config.dataset.train_examples = 5_000
    config.early_bird.compressions = (0.55, 0.8)
    config.early_bird.interval = 39  # half an epoch, so that five masks fit in the first half
    return config


def get_config(variant: str = "") -> ConfigDict:
    optimizer = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5}
    config = common.gan("cifar10", {"name": "dcgan", "width": 64}, optimizer, loss="bce")
    config.experiment = "table2"
    config.imp.rounds = 10
    config.imp.pruned = ("both",)
    config.imp.arms = ("winning", "snip", "grasp")
    config.early_bird.compressions = (0.2, 0.4, 0.6, 0.8, 0.9, 0.95)
    config.early_bird.arms = ("early_bird", "early_bird_mixed")
    config.metrics.names = ("frechet",)
    return common.choose(variant, config, cpu=_cpu)
