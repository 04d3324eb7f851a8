"""Sparse training in any optax loop: wrap an optimizer with `sparsify`, or keep a given mask with `masked_updates`.

The one part of `lotto_jax.pruning` that imports optax; `import lotto_jax.pruning` does not import it. Import it under
a name of its own, since `optax` is the library: `import lotto_jax.pruning.optax as sparse`.
"""

try:
    import optax  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("lotto_jax.pruning.optax needs optax; pip install optax.") from error

from lotto_jax.pruning.optax.rules import (
    Evidence,
    Rule,
    magnitude,
    movement,
    random,
    rigl,
    saliency,
    set_,
    static,
    straight_through,
)
from lotto_jax.pruning.optax.schedules import Schedule, constant, cubic, iterative, one_shot, polynomial
from lotto_jax.pruning.optax.transform import SparseState, forward_params, mask_of, masked_updates, sparsify

__all__ = [
    "Evidence",
    "Rule",
    "Schedule",
    "SparseState",
    "constant",
    "cubic",
    "forward_params",
    "iterative",
    "magnitude",
    "mask_of",
    "masked_updates",
    "movement",
    "one_shot",
    "polynomial",
    "random",
    "rigl",
    "saliency",
    "set_",
    "sparsify",
    "static",
    "straight_through",
]
