"""ResNet-18 that tells CelebA's 40 attributes: accuracy of reconstructions (Figures A.2, A.3) and `fd_resnet18`.

Variant: `configs/resnet18_celeba.py:cpu` is scaled down to an hour on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    config = common.classifier("celeb_a", flip=True)
    config.train.epochs = 10
    return common.choose(variant, config, cpu=common.narrow(epochs=3, width=16))
