"""DCGAN on CIFAR-10 from the winning tickets of a VAE's decoder (section 4.4, Figure 8, top).

Give the run directory of `configs/vae_cifar10.py` as `--config.transfer.source=DIR`.

Variant: `configs/transfer_vae_to_dcgan_cifar10.py:cpu`, from `configs/vae_cifar10.py:cpu` with
`--config.imp.pruned="('decoder',)"`, is scaled down to two CPU cores (`common.two_cores`).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    optimizer = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5}
    config = common.gan("cifar10", {"name": "dcgan", "width": 64}, optimizer, loss="bce")
    chosen = common.choose(variant, config, cpu=common.cpu(width=16, epochs=4, rounds=4, fraction=0.45))
    return common.transfer(chosen, "decoder", "generator")
