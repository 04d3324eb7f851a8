"""Wasserstein GAN on CIFAR-10: Table 1, Figure 6.

Variants: `configs/wgan_cifar10.py:cpu` is scaled down to two CPU cores (`common.two_cores`);
`configs/wgan_cifar10.py:gp` has a gradient penalty in place of clipped weights (Gulrajani et al. 2017).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    config = common.gan(
        "cifar10",
        {"name": "dcgan", "width": 64},
        {"name": "rmsprop", "learning_rate": 5e-5},
        loss="wasserstein",
        critic_steps=5,
        weight_clip=0.01,
    )
    # Weights clipped to 0.01 are smaller than the generator's: half of all at once would be the whole critic.
    cpu = common.cpu(width=16, epochs=8, rounds=4, fraction=0.2)
    return common.choose(variant, config, cpu=cpu, gp=common.gradient_penalty)
