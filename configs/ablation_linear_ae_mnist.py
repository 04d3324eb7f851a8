"""Why our linear autoencoder on MNIST wins up to another sparsity than the paper's: a grid, declared beforehand.

The paper (Table 1, first row: 89.2 %) does not state what `FACTORS` vary. Variants are cells of the grid,
`configs/ablation_linear_ae_mnist.py:relu,none,pytorch,1e-3,10,10`; without one it is the base, the first value of every
factor, which is what configs/linear_ae_mnist.py has. `python scripts/ablation.py --workdir=DIR` runs them in order.

Every cell has 5 seeds, the whole of MNIST, and winning and random tickets of both components in 7 rounds of 36 %: two
of the paper's rounds in one, to 95.6 %. So it meets the sparsities of the paper's even rounds, 73.8 % and 89.3 % among
them.

The rule, in this order:
1. the base, and each factor's other values alone, with the base's values of the others (9 cells, in the order of the
   factors);
2. the full cross of all factors but epochs, at 10 epochs, which is the cheap part (64 cells, 8 of them from before).
Cells that differ in the rewind step only share their dense networks.
"""

import itertools

from ml_collections import ConfigDict

from configs import common

# The first value of each is the base.
FACTORS: dict[str, tuple] = {
    "activation": ("relu", "none"),
    "output": ("none", "sigmoid"),
    "initialization": ("pytorch", "flax"),
    "learning_rate": ("1e-3", "3e-4"),
    "rewind_step": (10, 0, 100, 1000),
    "epochs": (10, 30),
}
BASE = tuple(values[0] for values in FACTORS.values())


def cells() -> list[tuple]:
    """All cells in the order in which they run, by the rule above; a cell has a value of each factor."""
    alone = [
        tuple(value if other == name else first for other, first in zip(FACTORS, BASE, strict=True))
        for name in FACTORS
        for value in FACTORS[name][1:]
    ]
    cheap = {**FACTORS, "epochs": FACTORS["epochs"][:1]}
    return list(dict.fromkeys([BASE, *alone, *itertools.product(*cheap.values())]))


def name_of(cell: tuple) -> str:
    """The variant of a cell, and the directory of its run."""
    return ",".join(map(str, cell))


def get_config(variant: str = "") -> ConfigDict:
    found = {name_of(cell): cell for cell in cells()}
    if variant and variant not in found:
        raise ValueError(f"there is no variant {variant!r}; it takes {name_of(BASE)!r} and other cells of the grid.")
    cell = dict(zip(FACTORS, found[variant] if variant else BASE, strict=True))
    own = {field: cell[field] for field in ("activation", "output", "initialization")}
    config = common.autoencoder("mnist", {"name": "linear_autoencoder", "latent": 128, **own})
    config.optimizer.learning_rate = float(cell["learning_rate"])
    config.train.epochs = cell["epochs"]
    config.evaluation.points = 0  # nothing here is of convergence
    config.imp.pruned = ("both",)
    config.imp.fraction = 0.36
    config.imp.rounds = 7
    config.imp.rewind_step = cell["rewind_step"]
    config.imp.rewind_steps = FACTORS["rewind_step"]
    return config
