"""A flow on CIFAR-10 from the winning tickets of the diffusion of the same UNet: same masks, other loss.

Give the run directory of `configs/ddpm_cifar10.py` as `--config.transfer.source=DIR`.

Variant: `configs/transfer_flow_cifar10.py:cpu`, from `configs/ddpm_cifar10.py:cpu`, is scaled down to two CPU cores.
"""

from ml_collections import ConfigDict

from configs import common, flow_cifar10


def get_config(variant: str = "") -> ConfigDict:
    return common.transfer(flow_cifar10.get_config(variant), "both", "both")
