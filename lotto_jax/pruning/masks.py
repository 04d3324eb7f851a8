"""Masks: pytrees with the structure of params, boolean where a leaf can be pruned and a scalar True where not.

Every function is pure and works under `jit`, `vmap` (a leading ticket axis on params and mask) and on sharded arrays.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

Params: TypeAlias = PyTree[Float[Array, "..."]]
"""Weights of a network: any pytree of float arrays."""
Mask: TypeAlias = PyTree[Bool[Array, "..."]]
"""The structure of params: a boolean array of a leaf's shape, False where pruned; a scalar True where none can be."""
Path = tuple  # of jax.tree_util key entries
Prunable = Callable[[Path, Array], bool]


def is_kernel(path: Path, leaf: Array) -> bool:
    """Whether `leaf` is floating and has two or more dimensions: a weight of a dense or conv layer.

    False for biases and norm scales, and for integer or boolean leaves of any shape (lookup tables, counters), which
    have no score. `leaf` may be a `jax.ShapeDtypeStruct`.
    """
    return leaf.ndim >= 2 and jnp.issubdtype(leaf.dtype, jnp.floating)


def path_name(path: Path) -> str:
    """`encoder/dense/kernel` for the key path of a leaf."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def in_components(*names: str, prunable: Prunable = is_kernel) -> Prunable:
    """A predicate for `ones`: the leaves that `prunable` accepts inside the named top-level keys of params.

    >>> params = {"generator": {"kernel": jnp.ones((2, 3))}, "discriminator": {"kernel": jnp.ones((3, 2))}}
    >>> mask = ones(params, prunable=in_components("generator"))
    >>> jax.tree.map(jnp.shape, mask)
    {'discriminator': {'kernel': ()}, 'generator': {'kernel': (2, 3)}}
    """

    def predicate(path: Path, leaf: Array) -> bool:
        return path_name(path[:1]) in names and prunable(path, leaf)

    return predicate


def ones(params: Params, prunable: Prunable = is_kernel) -> Mask:
    """The dense mask: all True with the leaf's shape where `prunable(path, leaf)`, a scalar True elsewhere.

    Args:
      params: pytree of arrays (or of `jax.ShapeDtypeStruct`).
      prunable: called with the key path and the leaf; see `is_kernel` and `in_components`.

    >>> ones({"dense": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}})
    {'dense': {'bias': Array(True, dtype=bool), 'kernel': Array([[ True,  True], ..., dtype=bool)}}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.ones(leaf.shape if prunable(path, leaf) else (), bool), params
    )


def is_prunable(mask_leaf: Array) -> bool:
    """Whether a mask leaf belongs to a prunable leaf of params (a 0-d one never does)."""
    return mask_leaf.ndim > 0


def check(params: Params, mask: Mask) -> None:
    """Raise ValueError, naming the leaf, unless `mask` fits `params`. Looks at structure, shapes and dtypes only."""
    expected = {path_name(p): x for p, x in jax.tree_util.tree_leaves_with_path(params)}
    found = {path_name(p): x for p, x in jax.tree_util.tree_leaves_with_path(mask)}
    if extra := [name for name in found if name not in expected]:
        raise ValueError(
            f"The mask has a leaf {extra[0]!r} that params lack; make masks with ones(params) of the same network."
        )
    if missing := [name for name in expected if name not in found]:
        raise ValueError(f"The mask has no leaf {missing[0]!r}; make masks with ones(params) of the same network.")
    for name, leaf in found.items():
        if leaf.dtype != jnp.bool_:
            raise ValueError(f"The mask leaf {name!r} has dtype {leaf.dtype}, not bool (True = kept).")
        if leaf.ndim and leaf.shape != expected[name].shape:
            raise ValueError(
                f"The mask leaf {name!r} has shape {leaf.shape}, but params have {expected[name].shape} there; "
                "this mask belongs to a network of another size."
            )


def apply(params: Params, mask: Mask) -> Params:
    """Params with pruned entries exactly 0 (also where they were NaN or infinite); dtypes are kept.

    Args:
      params: pytree of arrays.
      mask: boolean pytree of the same structure; leaves of the same shape, or scalar.

    Raises:
      ValueError: if the mask does not fit, naming the leaf.
    """
    check(params, mask)
    return jax.tree.map(lambda p, m: jnp.where(m, p, jnp.zeros((), p.dtype)) if m.ndim else p, params, mask)


def num_prunable(mask: Mask) -> int:
    """Number of entries that could be pruned: the total size of the non-scalar leaves (a Python int)."""
    return sum(m.size for m in jax.tree.leaves(mask) if is_prunable(m))


def count_true(x: Bool[Array, "..."]) -> Int[Array, ""]:
    """Number of True entries, int32. Summed as two rows, because XLA's CPU backend sums to a scalar on one core."""
    rows = x.reshape(2 if x.size % 2 == 0 else 1, -1)
    return jnp.sum(jnp.sum(rows, axis=1, dtype=jnp.int32), dtype=jnp.int32)


def num_kept(mask: Mask) -> Int[Array, ""]:
    """Number of kept (True) entries over all prunable leaves, int32."""
    counts = [count_true(m) for m in jax.tree.leaves(mask) if is_prunable(m)]
    return sum(counts, jnp.zeros((), jnp.int32))


def sparsity(mask: Mask) -> Float[Array, ""]:
    """Pruned share of all prunable entries, in [0, 1], float32; 0 for a mask with nothing to prune."""
    number = num_prunable(mask)
    return 1.0 - num_kept(mask).astype(jnp.float32) / number if number else jnp.zeros((), jnp.float32)


def pack(mask: Mask) -> dict[str, np.ndarray]:
    """Bit-packed host copy `{leaf name: uint8 array}` of the prunable leaves (1/8 of a byte an entry), for storage."""
    leaves = jax.tree_util.tree_leaves_with_path(mask)
    return {path_name(p): np.packbits(np.asarray(m).reshape(-1)) for p, m in leaves if is_prunable(m)}


def unpack(packed: dict[str, np.ndarray], like: Mask) -> Mask:
    """The mask that `pack` stored; `like` (for instance `ones(params)`) gives structure and shapes.

    Raises:
      ValueError: if the names or sizes of the stored leaves differ from the prunable leaves of `like`.
    """
    expected = {path_name(p): m for p, m in jax.tree_util.tree_leaves_with_path(like) if is_prunable(m)}
    for name, m in expected.items():
        if name not in packed or packed[name].size != -(-m.size // 8):
            raise ValueError(f"The stored mask does not fit the network at leaf {name!r} of shape {m.shape}.")
    if extra := sorted(set(packed) - set(expected)):
        raise ValueError(f"The stored mask has a leaf {extra[0]!r} that the network lacks.")

    def leaf(path: Path, m: Array) -> Array:
        if not is_prunable(m):
            return m
        bits = np.unpackbits(packed[path_name(path)], count=m.size)
        return jnp.asarray(bits.reshape(m.shape).astype(bool))

    return jax.tree_util.tree_map_with_path(leaf, like)


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Stack pytrees (masks, states) leaf by leaf on a new leading ticket axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
