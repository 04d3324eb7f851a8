"""ResNet-18 classifier of CIFAR-10: accuracy of reconstructions (Figures A.2, A.3) and `fd_resnet18`.

Variant: `configs/resnet18_cifar10.py:cpu` is scaled down to half an hour on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    config = common.classifier("cifar10", flip=True, shift=4)
    config.train.epochs = 60
    return common.choose(variant, config, cpu=common.narrow(epochs=7, width=16, shift=True))
