"""ResNet-18 classifier of MNIST: accuracy of reconstructions (section 3.2) and `fd_resnet18`.

Variant: `configs/resnet18_mnist.py:cpu` is scaled down to ten minutes on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    config = common.classifier("mnist", shift=2)
    config.train.epochs = 20
    return common.choose(variant, config, cpu=common.narrow(epochs=5, width=8, shift=True))
