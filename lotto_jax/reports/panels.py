"""What one plot of a metric against sparsity shows, whether it is drawn for paper or on the page."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from lotto_jax.reports.summary import Point, Winning

SHOWN_BY_DEFAULT = ("winning", "random")


class Line(NamedTuple):
    """Tickets of one arm, by ascending sparsity.

    Attributes:
      label: in the legend.
      style: which color, dash and marker it has: an arm, or `first` and `second` for single components.
      points: means and spreads.
    """

    label: str
    style: str
    points: list[Point]


class Panel(NamedTuple):
    """A plot.

    Attributes:
      title: above it; may be empty.
      metric: what is on the y axis.
      dense: the dense network's line and band, if it was measured.
      lines: the arms, the first of which decides the range of the axes.
      wins: sparsities that are marked.
      limit: share of the network that the pruned components are, which sparsities tend to.
    """

    title: str
    metric: str
    dense: Point | None
    lines: list[Line]
    wins: list[Winning]
    limit: float = 1.0

    def position(self, sparsity: float) -> float:
        """Place on the x axis, where rounds that remove a fixed share lie at equal distances."""
        return -math.log(max(1 - sparsity / self.limit, 1e-6))

    @property
    def sparsities(self) -> list[float]:
        """All that are shown, ascending."""
        return sorted({point.sparsity for line in self.lines for point in line.points})

    def ticks(self) -> list[float]:
        """Sparsities to label, as many as fit."""
        chosen: list[float] = []
        span = self.position(self.sparsities[-1]) or 1.0
        for s in self.sparsities:
            if not chosen or self.position(s) - self.position(chosen[-1]) > span / 7:
                chosen.append(s)
        return chosen

    def range(self) -> tuple[float, float]:
        """Of the y axis: all means with their bars, as far as these are no longer than half the distance of the means.

        Very sparse one-shot tickets can lie far off; the means are those of the others.
        """
        lines = [line for line in self.lines if line.style != "one_shot"] or self.lines
        points = [p for line in lines for p in line.points if p.values]
        points += [self.dense] if self.dense and self.dense.values else []
        means = [p.mean for p in points] or [0.0]
        span = max(means) - min(means) or abs(means[0]) or 1.0  # all may be the same
        bars = [min(p.std, span / 2) for p in points] or [0.0]
        low, high = (min(map(float.__sub__, means, bars)), max(map(float.__add__, means, bars)))
        return low - 0.08 * span, high + 0.15 * span


def in_rounds(arm: str) -> bool:
    """Whether the tickets of an arm have a sparsity of weights, and so a place on the axis of sparsities."""
    return arm != "dense" and not arm.startswith("early_bird")


def words(name: str) -> str:
    """A name of a metric or arm as it is read."""
    return name.replace("_", " ")


def compared(arms: Sequence[str]) -> list[str]:
    """The two arms that curves and grids show: winning and random tickets, or the first there are; else the dense."""
    there = list(dict.fromkeys(arm for arm in arms if arm != "dense"))
    usual = [arm for arm in SHOWN_BY_DEFAULT if arm in there]
    return (usual or there or ["dense"])[:2]


def dense_of(points: Sequence[Point]) -> Point | None:
    """The dense network among the points of a metric."""
    return next((p for p in points if p.arm == "dense"), None)


def choices(points: Sequence[Point]) -> list[str]:
    """Choices of pruned components, in order of appearance."""
    return list(dict.fromkeys(p.pruned for p in points if in_rounds(p.arm)))


def of_choice(points: Sequence[Point], metric: str, pruned: str, wins: Sequence[Winning], title: str = "") -> Panel:
    """All arms of one choice of pruned components."""
    here = [p for p in points if p.pruned == pruned and in_rounds(p.arm)]
    arms = list(dict.fromkeys(p.arm for p in here))
    first = compared(arms)
    arms.sort(key=lambda arm: first.index(arm) if arm in first else len(first))
    lines = [Line(words(arm), arm, _line(here, arm)) for arm in arms]
    limit = _limit(lines[0].points) if arms[0] != "one_shot" else 1.0
    return Panel(title, metric, dense_of(points), lines, [win for win in wins if win.pruned == pruned], limit)


def of_metric(points: Sequence[Point], metric: str, wins: Sequence[Winning]) -> list[Panel]:
    """A panel for each choice of pruned components."""
    there = choices(points)
    return [of_choice(points, metric, c, wins, f"{c} pruned" if len(there) > 1 else "") for c in there]


def of_components(
    points: Sequence[Point], metric: str, wins: Sequence[Winning], title: str, arms: Sequence[str] = SHOWN_BY_DEFAULT
) -> Panel:
    """Both components pruned, and beside winning and random tickets those of single components, as Figures 4 to 6."""
    there = choices(points)
    main = "both" if "both" in there else there[0]
    lines = [Line(words(a), a, _line(points, a, main)) for a in arms]
    singles = [c for c in there if c != main] if tuple(arms) == SHOWN_BY_DEFAULT else []
    for style, c in zip(("first", "second"), singles, strict=False):
        lines.append(Line(f"{c} only", style, _line(points, "winning", c)))
    lines = [line for line in lines if line.points]
    return Panel(title, metric, dense_of(points), lines, [win for win in wins if win.pruned == main])


def _line(points: Sequence[Point], arm: str, pruned: str | None = None) -> list[Point]:
    own = [p for p in points if p.arm == arm and pruned in (None, p.pruned)]
    return sorted(own, key=lambda p: p.sparsity)


def _limit(line: list[Point]) -> float:
    """Share of the network that the pruned components are: what the sparsity of a line of rounds tends to."""
    by_round = {p.round: p.sparsity for p in line}
    if 1 not in by_round or 2 not in by_round:
        return 1.0
    kept = by_round[2] / by_round[1] - 1  # of a round's weights; sparsities are a geometric series
    return min(by_round[1] / (1 - kept), 1.0)
