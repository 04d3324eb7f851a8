"""The paper's Table 1 beside what was measured, with a verdict."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from lotto_jax.objectives.state import Better
from lotto_jax.reports import answer, curves, panels, paper, settings, summary
from lotto_jax.reports.panels import words
from lotto_jax.reports.paper import Network
from lotto_jax.reports.source import Source
from lotto_jax.reports.summary import Point, Winning, cell
from lotto_jax.reports.tables import Table
from lotto_jax.runs import curves as logs

MISSING = "missing"
ROUNDS_APART = 1.0  # winning sparsities that differ by one round or less agree
HEADER = (
    "network, dataset",
    "winning ticket",
    "paper",
    "verdict",
    "stricter rule",
    "judged by",
    "winning / dense / random there",
    "seeds",
    "scale",
    "dense loss in the last tenth",
    "params in the paper",
)
WORDS = (0, 3, 4, 5, 8, 9)


class Measured(NamedTuple):
    """What a run says of one metric and one choice of pruned components.

    Attributes:
      metric: that it is judged by.
      pruned: the components.
      win: `summary.winning`.
      strict: `summary.strictly_winning`.
      points: of the metric.
      seeds: of the winning arm.
      last: the largest sparsity of the winning arm.
      slope: of the dense network's training loss at the end, if its curve is kept and is one of a loss.
      better: which values of the metric are.
    """

    metric: str
    pruned: str
    win: Winning | None
    strict: Winning | None
    points: list[Point]
    seeds: int
    last: float
    slope: curves.Slope | None
    better: Better

    @property
    def at(self) -> float | None:
        """The winning sparsity; without one the largest at which the winning arm is within the tolerance."""
        if self.win and self.win.sparsity is not None:
            return self.win.sparsity
        dense = panels.dense_of(self.points)
        if dense is None or not dense.values:
            return None
        allowed = self.win.tolerance if self.win else summary.default_tolerance(dense)
        sign = -1 if self.better == "higher" else 1
        own = [p for p in self.points if (p.arm, p.pruned) == ("winning", self.pruned) and p.values]
        return max((p.sparsity for p in own if sign * (p.mean - dense.mean) <= allowed), default=None)

    @property
    def there(self) -> dict[str, Point]:
        """Arms at that sparsity, and the dense network."""
        at = self.at
        near = (
            (lambda p: p.pruned == self.pruned and abs(p.sparsity - at) < 1e-4) if at is not None else lambda p: False
        )
        return {p.arm: p for p in self.points if p.arm == "dense" or near(p)}


def measured(source: Source, metric: str, pruned: str) -> Measured:
    """A run by a metric that its winning tickets have."""
    points = source.points(metric)
    own = [p for p in points if (p.arm, p.pruned) == ("winning", pruned)]
    win, strict = source.winning(metric, pruned), source.strictly_winning(metric, pruned)
    seeds = max(len(p.values) + p.collapsed for p in own)
    last = max(p.sparsity for p in own)
    return Measured(metric, pruned, win, strict, points, seeds, last, slope(source), source.better(metric))


def slope(source: Source) -> curves.Slope | None:
    """Of the dense network's first training loss at the end; None where its curve is not kept, or is no loss."""
    log = logs.read(source.path)
    losses = [name for name in curves.names(log) if source.measured(name).get("better", "lower") == "lower"]
    return curves.end_slope(log, losses[0]) if losses else None


def by_answer(source: Source) -> Measured | None:
    """A run by what decides of it; None without winning tickets."""
    if not (metric := answer.judged_by(source)):
        return None
    pruned = next(p.pruned for p in source.points(metric) if p.arm == "winning")
    return measured(source, metric, pruned)


def verdict(found: Measured | None, sparsity: float | None, fraction: float) -> str:
    """A measured winning sparsity beside the paper's.

    Args:
      found: what was measured; None is missing.
      sparsity: the paper's; None if it gives no number.
      fraction: removed in a round; sparsities one round apart or less agree.
    """
    if found is None:
        return MISSING
    if found.win is None:
        return "undecided"
    if found.win.sparsity is None:
        return "undecided" if found.seeds < summary.STRICT_SEEDS else "no winning ticket"
    if sparsity is None:
        return "found"
    apart = math.log((1 - sparsity) / (1 - found.win.sparsity)) / math.log(1 - fraction)
    if apart <= ROUNDS_APART + 1e-6:
        return "agrees" if apart < ROUNDS_APART / 2 else "agrees, a round less"
    if found.win.sparsity >= found.last - 1e-4:
        return "agrees as far as it was tried"
    return "in kind, less sparse"


def sparsity(win: Winning | None) -> str:
    """A winning sparsity as a cell."""
    return "" if win is None else "none" if win.sparsity is None else f"{win.sparsity:.1%}"


def strictly(found: Measured) -> str:
    """The stricter rule's as a cell."""
    if found.strict is None:
        return f"not tested, {settings.count(found.seeds, 'seed')}"
    return sparsity(found.strict)


def values(found: Measured) -> str:
    """Means and spreads at the winning sparsity; where there is none, at the largest within the tolerance."""
    shown = " / ".join(cell(found.there[arm]) if arm in found.there else "-" for arm in ("winning", "dense", "random"))
    decided = found.win is not None and found.win.sparsity is not None
    return shown if decided or found.at is None else f"at {found.at:.1%}: {shown}"


def falling(found: Measured) -> str:
    """The slope of the dense network's loss as a cell."""
    if found.slope is None:
        return "unknown"
    return f"{found.slope.mean:+.1%}" + (", still falls" if found.slope.still_falls else "")


def cells(row: Network | None, source: Source | None) -> list[str]:
    """A row of the table: of the paper, of a run, or of both."""
    found = None if source is None else by_answer(source)
    name = f"{row.name}, {row.dataset}" if row else source.title.split(",")[0] if source else ""
    told = f"{row.sparsity:.1%}" if row else ""
    params = row.params if row else ""
    if source is None or found is None:
        gap = MISSING if source is None else "not searched for"
        return [name, gap, told, gap, "", row.judged_by if row else "", "", "", "", "", params]
    return [
        name,
        sparsity(found.win) if verdict(found, None, 0.5) != "undecided" else "undecided",
        told,
        verdict(found, row.sparsity if row else None, source.config["imp"]["fraction"]) if row else "",
        strictly(found),
        f"{words(found.metric)}, {answer.BETTER[source.better(found.metric)]}",
        values(found),
        str(found.seeds),
        settings.scale(source),
        falling(found),
        params,
    ]


def rows(runs: Sequence[Source]) -> list[tuple[Network | None, Source | None]]:
    """The rows of the paper, each with its runs, or with none; then the searches that the paper does not have."""
    known: list[tuple[str | None, Source]] = [(paper.identify(run.config), run) for run in runs]
    made: list[tuple[Network | None, Source | None]] = []
    for network in paper.TABLE1:
        own = [run for name, run in known if name == network.config]
        made += [(network, run) for run in own] or [(network, None)]
    return made + [(None, run) for name, run in known if name is None and answer.judged_by(run)]


def table(found: Sequence[tuple[Network | None, Source | None]], links: Sequence[str]) -> Table:
    """Table 1; a measured number leads to `links`, one for each row."""
    lines = [cells(row, source) for row, source in found]
    to = {(i, column): link for i, link in enumerate(links) if link for column in (0, 1)}
    caption = "Table 1: winning tickets, measured and in the paper"
    return Table(list(HEADER), lines, "table1", caption, {}, to, WORDS)
