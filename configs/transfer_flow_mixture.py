"""A flow of the mixture from the winning tickets of its diffusion, and back: same masks, other loss.

Give the run directory of `configs/flow_mixture.py:diffusion` as `--config.transfer.source=DIR`.

Variant: `configs/transfer_flow_mixture.py:diffusion`, from `configs/flow_mixture.py`, trains the diffusion.
"""

from ml_collections import ConfigDict

from configs import common, flow_mixture


def get_config(variant: str = "") -> ConfigDict:
    config = flow_mixture.get_config(variant)
    config.imp.one_shot_sparsities = ()
    return common.transfer(config, "both", "both")
