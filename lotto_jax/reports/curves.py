"""Training curves of a run, as figures and the page show them, and whether training ended before they did."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lotto_jax.reports.panels import compared

COLUMNS = ("position", "pruned", "round", "arm", "seed", "sparsity", "step")
SHOWN = 400  # points of a line, at most
END = 0.1  # share of training, whose slope is that of the end
STILL = 0.01  # fall over that share, from which on a curve counts as falling


class Curves(NamedTuple):
    """The dense network and tickets of one arm: label, steps, and means over seeds of each line."""

    arm: str
    lines: list[tuple[str, list[int], list[float]]]


class Slope(NamedTuple):
    """How a training loss changes over the last tenth of training, relative to what it is there.

    Attributes:
      mean: over seeds; -0.02 is a fall by 2 %.
      seeds: how many.
    """

    mean: float
    seeds: int

    @property
    def still_falls(self) -> bool:
        """Whether longer training would go on lowering the loss."""
        return self.mean < -STILL


def names(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the curves of a run are of."""
    return [key for key in (log[-1] if log else {}) if key not in COLUMNS]


def by_arm(log: Iterable[Mapping[str, Any]], name: str) -> list[Curves]:
    """Means over seeds: the dense network and up to two arms, at five sparsities, of the first choice of components."""
    log = list(log)
    groups: dict[tuple, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    arms = compared([p["arm"] for p in log])
    first = next(p["pruned"] for p in log if p["arm"] == arms[0])
    for p in log:
        if name in p and (p["arm"] == "dense" or (p["arm"] in arms and p["pruned"] == first)):
            groups[p["arm"], round(p["sparsity"], 4)][p["step"]].append(p[name])
    there = sorted({s for arm, s in groups if arm in arms and arm != "dense"})
    chosen = [there[i] for i in sorted(set(np.linspace(0, len(there) - 1, 5).round().astype(int)))] if there else []
    made = []
    for arm in arms:
        lines = [("dense", groups.get(("dense", 0), {}))]
        lines += [(f"{s:.1%}", groups.get((arm, s), {})) for s in chosen if arm != "dense"]
        made.append(Curves(arm, [(label, *_means(curve)) for label, curve in lines]))
    return made


def _means(curve: Mapping[int, list[float]]) -> tuple[list[int], list[float]]:
    """Steps and means; of long curves every so many steps, and the last."""
    steps = sorted(curve)
    every = -(-len(steps) // SHOWN) or 1
    kept = steps[::-every][::-1]
    return kept, [float(np.mean(curve[step])) for step in kept]


def end_slope(log: Iterable[Mapping[str, Any]], name: str, share: float = END) -> Slope | None:
    """The slope of the dense network's training loss at the end; None where there are too few points.

    Args:
      log: points of metrics.jsonl.
      name: of the loss, which is positive.
      share: of training, from the end, to which a straight line is fitted by least squares for every seed.
    """
    own: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for p in log:
        if p["arm"] == "dense" and name in p:
            own[p["seed"]].append((p["step"], p[name]))
    found = [_change(np.array(sorted(curve), float), share) for curve in own.values()]
    changes = [change for change in found if change is not None]
    return Slope(float(np.mean(changes)), len(changes)) if changes else None


def _change(curve: Float[np.ndarray, "points 2"], share: float) -> float | None:
    last = curve[-1, 0]
    end = curve[curve[:, 0] > (1 - share) * last]
    if len(end) < 3 or not np.isfinite(end).all() or np.mean(end[:, 1]) <= 0:
        return None
    slope = np.polyfit(end[:, 0] - last, end[:, 1], 1)[0]
    return float(slope * share * last / np.mean(end[:, 1]))
