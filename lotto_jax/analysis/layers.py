"""Leaves by name, which every count and share is taken over."""

from jax.tree_util import tree_leaves_with_path
from jaxtyping import Array, PyTree

from lotto_jax.pruning import masks


def of(mask: masks.Mask, *trees: PyTree) -> dict[str, tuple[Array, ...]]:
    """`{leaf name: (mask leaf, leaf of each tree)}` of the prunable leaves.

    Args:
      mask: of one ticket; its scalars are leaves that cannot be pruned.
      *trees: of the same structure.
    """
    named = [{masks.path_name(path): leaf for path, leaf in tree_leaves_with_path(tree)} for tree in (mask, *trees)]
    return {name: tuple(tree[name] for tree in named) for name, leaf in named[0].items() if masks.is_prunable(leaf)}
