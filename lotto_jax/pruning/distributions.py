"""How a sparsity is spread over leaves: exact numbers of entries to remove, from shapes alone (on the host).

Sources: Erdos-Renyi, Mocanu et al. 2018; Erdos-Renyi-Kernel, Evci et al. 2020, section 3.
"""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

T = TypeVar("T")
NAMES = ("global", "uniform", "erdos_renyi", "erdos_renyi_kernel")
Shape = tuple[int, ...]


def _share(value: float) -> Fraction:
    """The decimal number that a float stands for: 0.1 is 1/10, of whatever precision the float is."""
    return Fraction(str(value))


def _size(shape: Shape) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _density_scale(shape: Shape, kernel: bool) -> Fraction:
    """What the density of a leaf is proportional to: (n_in + n_out [+ width + height]) / (their product)."""
    dims = shape if kernel else shape[-2:]
    product = _size(dims)
    return Fraction(sum(dims), product) if product else Fraction(0)


def _densities(sizes: Sequence[int], scales: Sequence[Fraction], budget: Fraction) -> list[Fraction]:
    """Densities proportional to `scales` with `budget` entries in all; leaves that would be over 1 are dense."""
    dense: set[int] = set()
    while True:
        rest = [i for i in range(len(sizes)) if i not in dense]
        weight = sum((sizes[i] * scales[i] for i in rest), Fraction(0))
        epsilon = (budget - sum(sizes[i] for i in dense)) / weight if weight else Fraction(0)
        over = {i for i in rest if epsilon * scales[i] > 1}
        if not over:
            return [Fraction(1) if i in dense else epsilon * scales[i] for i in range(len(sizes))]
        dense |= over


def _whole(wanted: Sequence[Fraction], total: int) -> list[int]:
    """Integers that sum to `total`, as near to `wanted` as that allows: the largest remainders are rounded up."""
    counts = [int(w) for w in wanted]
    order = sorted(range(len(wanted)), key=lambda i: (counts[i] - wanted[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts


def kept_counts(shapes: Mapping[str, Shape], sparsity: float, distribution: str | Mapping[str, float]) -> list[int]:
    """How many entries each leaf keeps.

    Args:
      shapes: of the prunable leaves, by path name.
      sparsity: of all leaves together; not read where `distribution` is a mapping.
      distribution: "uniform": every leaf is as sparse as the whole. "erdos_renyi": densities proportional to
        (n_in + n_out) / (n_in n_out), of the last two axes. "erdos_renyi_kernel": of all axes, so that kernels of
        convolutions count too. Or sparsities by regular expressions over path names: the first that matches the whole
        name counts, and leaves that none matches stay dense.

    Returns:
      Counts in the order of `shapes`; of a named distribution they sum to exactly N - round(sparsity N).

    Raises:
      ValueError: if the distribution is not known, or an expression matches no leaf.

    >>> kept_counts({"a": (4, 5), "b": (10, 10)}, 0.5, "uniform")
    [10, 50]
    >>> kept_counts({"a": (4, 5), "b": (10, 10)}, 0.5, {"a": 0.9})
    [2, 100]
    """
    sizes = [_size(shape) for shape in shapes.values()]
    if isinstance(distribution, Mapping):
        for expression, value in distribution.items():
            if not 0 <= value <= 1:
                raise ValueError(f"The sparsity for {expression!r} is {value}; it must lie in [0, 1].")
        by_leaf = by_expression(list(shapes), distribution, 0.0)
        return [n - round(_share(s) * n) for n, s in zip(sizes, by_leaf, strict=True)]
    budget = sum(sizes) - round(_share(sparsity) * sum(sizes))
    if distribution == "uniform":
        scales = [Fraction(1)] * len(sizes)
    elif distribution in ("erdos_renyi", "erdos_renyi_kernel"):
        scales = [_density_scale(shape, distribution == "erdos_renyi_kernel") for shape in shapes.values()]
    else:
        raise ValueError(f"distribution is {distribution!r}; it takes one of {', '.join(NAMES)}, or a mapping.")
    densities = _densities(sizes, scales, Fraction(budget))
    return _whole([d * n for d, n in zip(densities, sizes, strict=True)], budget)


def by_expression(names: Sequence[str], values: Mapping[str, T], otherwise: T) -> list[T]:
    """The value of each leaf: of the first expression that matches its whole path name, else `otherwise`.

    Raises:
      ValueError: if an expression matches no leaf.
    """
    for expression in values:
        if not any(re.fullmatch(expression, name) for name in names):
            raise ValueError(f"{expression!r} matches no prunable leaf; there are {', '.join(names)}.")
    return [next((v for e, v in values.items() if re.fullmatch(e, name)), otherwise) for name in names]
