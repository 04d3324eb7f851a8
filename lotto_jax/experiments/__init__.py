"""The experiments: each a file that says which tickets train from which states, over one runner.

A new one is a module with an `EXPERIMENT` (`protocol.Experiment`) and a row here, or, outside of this package,
`config.experiment = "my_package.my_experiment:EXPERIMENT"`.
"""

from ml_collections import ConfigDict

from lotto_jax import names
from lotto_jax.experiments import dense, early_bird, imp, one_shot, prune_at_init, siblings, table2, transfer
from lotto_jax.experiments.protocol import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    "dense": dense.EXPERIMENT,
    "early_bird": early_bird.EXPERIMENT,
    "imp": imp.EXPERIMENT,
    "one_shot": one_shot.EXPERIMENT,
    "prune_at_init": prune_at_init.EXPERIMENT,
    "siblings": siblings.EXPERIMENT,
    "table2": table2.EXPERIMENT,
    "transfer": transfer.EXPERIMENT,
}


def of(config: ConfigDict) -> Experiment:
    """The experiment that a configuration names.

    Raises:
      ValueError: if there is none.
    """
    found = names.choose(config.experiment, EXPERIMENTS, "config.experiment")
    if not isinstance(found, Experiment):
        raise ValueError(
            f"config.experiment is {config.experiment!r}, which is a {type(found).__name__}; it takes a "
            "lotto_jax.experiments.protocol.Experiment."
        )
    return found


def parts_of(config: ConfigDict) -> list[ConfigDict]:
    """The configurations of the runs that an experiment is made of; `experiment` names the directory of each."""
    parts = [config.copy_and_resolve_references() for _ in of(config).parts]
    for part, name in zip(parts, of(config).parts, strict=True):
        part.experiment = name
    return parts
