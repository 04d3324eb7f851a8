"""VAE on CIFAR-10 from the winning tickets of a DCGAN's generator (section 4.4, Figure 8, bottom).

Give the run directory of `configs/dcgan_cifar10.py` as `--config.transfer.source=DIR`.

Variant: `configs/transfer_dcgan_to_vae_cifar10.py:cpu`, from `configs/dcgan_cifar10.py:cpu` with
`--config.imp.pruned="('generator',)"`, is scaled down to two CPU cores (`common.two_cores`).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    config = common.autoencoder("cifar10", {"name": "vae", "latent": 128, "width": 64}, beta=1.0)
    config.metrics.names = ("frechet",)
    chosen = common.choose(variant, config, cpu=common.cpu(width=16, epochs=4, rounds=4, fraction=0.5))
    return common.transfer(chosen, "generator", "decoder")
