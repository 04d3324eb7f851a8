"""Linear autoencoder on MNIST: first row of Table 1, Figure 4 (left), Figure A.8 (MNIST).

Variants: `configs/linear_ae_mnist.py:rewind0` rewinds to initialization instead (Figure 3, right);
`configs/linear_ae_mnist.py:cpu` is scaled down to two CPU cores (`common.two_cores`).
"""

from ml_collections import ConfigDict

from configs import common


def _rewind0(config: ConfigDict) -> ConfigDict:
    config.imp.rewind_step = 0
    config.imp.pruned = ("both",)
    config.imp.arms = ("winning",)
    config.imp.one_shot_sparsities = ()
    return config


def _cpu(config: ConfigDict) -> ConfigDict:
    config.imp.one_shot_sparsities = ()
    return common.two_cores(config, epochs=10, rounds=10, fraction=0.36)


def get_config(variant: str = "") -> ConfigDict:
    config = common.autoencoder("mnist", {"name": "linear_autoencoder", "latent": 128})
    config.train.epochs = 10
    config.imp.one_shot_sparsities = (0.5, 0.75, 0.85, 0.9, 0.95, 0.99)
    return common.choose(variant, config, cpu=_cpu, rewind0=_rewind0)
