"""The networks of a configuration as a table: every leaf of params, its size, and whether pruning can touch it."""

from dataclasses import dataclass

import jax
from clu import parameter_overview

from lotto_jax.objectives.state import Objective
from lotto_jax.pruning import masks


@dataclass
class _Leaf:
    name: str
    shape: str
    size: int
    prunable: str


@dataclass
class _Total:
    component: str
    params: int
    prunable: int
    other: int


def describe(objective: Objective) -> str:
    """A row for every leaf of params, then the totals of every component."""
    params = jax.eval_shape(objective.init, jax.random.key(0)).params
    leaves, totals = [], []
    for component in objective.components:
        kept = other = 0
        for path, leaf in jax.tree_util.tree_leaves_with_path({component: params[component]}):
            prunable = masks.is_kernel(path, leaf)
            kept, other = kept + prunable * leaf.size, other + (not prunable) * leaf.size
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            leaves.append(_Leaf(name, str(leaf.shape), leaf.size, "yes" if prunable else "no"))
        totals.append(_Total(component, kept + other, kept, other))
    if len(totals) > 1:
        totals.append(_Total("both", *(sum(getattr(t, f) for t in totals) for f in ("params", "prunable", "other"))))
    return parameter_overview.make_table(leaves) + "\n\n" + parameter_overview.make_table(totals)
