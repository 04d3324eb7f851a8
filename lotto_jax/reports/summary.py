"""From results.csv to what is reported: means and spreads by sparsity and arm, and the winning sparsity."""

import math
import statistics
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from lotto_jax.objectives.state import Better
from lotto_jax.runs.results import Result

FOUND = "found_step"  # of an early-bird ticket; -1 where none was found
COLLAPSED = "collapsed"  # this metric is no result of its own: it says which seeds to leave out
SIGNIFICANCE = 0.05
STRICT_SEEDS = 3  # of each arm, for the stricter rule


class Point(NamedTuple):
    """One arm at one sparsity: measurements of seeds, and how many seeds have none, for the reason `lost`."""

    pruned: str
    arm: str
    round: int
    sparsity: float
    values: tuple[float, ...]
    collapsed: int = 0
    lost: str = COLLAPSED

    @property
    def mean(self) -> float:
        """Mean over seeds; NaN if none has a value."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def std(self) -> float:
        """Sample standard deviation over seeds (ddof 1); 0 for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0


class Winning(NamedTuple):
    """The winning sparsity of one choice of pruned components, and what it was judged by (None: there is none)."""

    pruned: str
    sparsity: float | None
    dense: Point
    tolerance: float
    p_value: float | None


def metrics(results: list[Result]) -> list[str]:
    """Names of the metrics measured, in order of appearance."""
    return [name for name in dict.fromkeys(r.metric for r in results) if name != COLLAPSED]


def points(results: list[Result], metric: str) -> list[Point]:
    """Measurements of `metric` grouped over seeds, by pruned components, arm and sparsity."""
    groups: dict[tuple, list[Result]] = defaultdict(list)
    which = lambda r: (r.pruned, r.arm, r.round, r.sparsity, r.seed)  # noqa: E731
    collapsed = {which(r) for r in results if r.metric == COLLAPSED and not r.value < 0.5}
    for r in results:
        if r.metric == metric:
            # Seeds of one one-shot sparsity, or of one round, differ by at most a rounded weight.
            groups[r.pruned, r.arm, r.round, round(r.sparsity, 4)].append(r)
    made = []
    for (pruned, arm, number, _), rs in groups.items():
        usable = (r.value for r in rs if which(r) not in collapsed and math.isfinite(r.value))
        values = tuple(value for value in usable if metric != FOUND or value >= 0)
        lost = "not found" if metric == FOUND else COLLAPSED
        made.append(Point(pruned, arm, number, rs[0].sparsity, values, len(rs) - len(values), lost))
    return made


def default_tolerance(dense: Point) -> float:
    """How much worse than the dense mean a winning ticket may be, by a metric without a tolerance of its own."""
    return max(dense.std, 0.1 * abs(dense.mean))


def welch(control: Point, ticket: Point, better: Better) -> float:
    """p-value of the one-sided Welch test that the control is worse than the ticket; both have two seeds or more."""
    from scipy import stats  # a third of a second, which every command would wait for

    if control.std == ticket.std == 0:  # the test is undefined then; their means decide
        worse = control.mean < ticket.mean if better == "higher" else control.mean > ticket.mean
        return 0.0 if worse else 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of one arm without spread, as accuracies can be
        side = "less" if better == "higher" else "greater"
        return float(stats.ttest_ind(control.values, ticket.values, equal_var=False, alternative=side).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for how many they are (Holm 1979), in the same order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = least
    return corrected


def winning(points: list[Point], better: Better, pruned: str, tolerance: float = 0.0) -> Winning | None:
    """The largest sparsity at which the winning arm is as good as the dense network and the random arm is worse.

    As good: its mean is worse than the dense mean by at most the tolerance. Worse: a one-sided Welch test of the random
    against the winning arm has p < 0.05; it needs two seeds or more.

    Args:
      points: of one metric.
      better: which values of the metric are, as metrics.json declares it.
      pruned: the choice of components.
      tolerance: 0 for the default.

    Returns:
      None if that is not decidable: the dense, winning or random arm was not measured, or with a single seed, or the
      metric has no better and worse.
    """
    if better == "neither":
        return None
    sign = -1 if better == "higher" else 1
    dense = next((p for p in points if p.arm == "dense"), None)
    arms = {arm: {p.round: p for p in points if (p.pruned, p.arm) == (pruned, arm)} for arm in ("winning", "random")}
    if dense is None or not arms["winning"] or not any(len(p.values) > 1 for p in arms["random"].values()):
        return None
    allowed = tolerance or default_tolerance(dense)
    found: tuple[float | None, float | None] = (None, None)
    for number, ticket in sorted(arms["winning"].items()):
        control = arms["random"].get(number)
        if control is None or min(len(control.values), len(ticket.values)) < 2 or ticket.collapsed:
            continue
        p_value = welch(control, ticket, better)
        if sign * (ticket.mean - dense.mean) <= allowed and p_value < SIGNIFICANCE:
            found = ticket.sparsity, p_value
    return Winning(pruned, found[0], dense, allowed, found[1])


def strictly_winning(points: list[Point], better: Better, pruned: str, tolerance: float = 0.0) -> Winning | None:
    """The stricter rule beside `winning`: as good at this sparsity and at all lower ones, and significant among many.

    The largest sparsity tested such that there, and at every lower one, the winning arm is within the tolerance of the
    dense network, and the random arm is worse with p < 0.05 after Holm's correction over all sparsities tested. A
    sparsity is tested with three seeds or more of both arms; one that is not, or where a winning ticket collapsed, ends
    the range. Arguments are those of `winning`.

    Returns:
      `p_value` is the corrected one; None if that is not decidable, see `winning`, or no sparsity is tested.
    """
    if better == "neither":
        return None
    dense = next((p for p in points if p.arm == "dense"), None)
    arms = {arm: {p.round: p for p in points if (p.pruned, p.arm) == (pruned, arm)} for arm in ("winning", "random")}
    pairs = {number: (ticket, arms["random"].get(number)) for number, ticket in sorted(arms["winning"].items())}
    tested = {n: (t, c) for n, (t, c) in pairs.items() if c and min(len(t.values), len(c.values)) >= STRICT_SEEDS}
    if dense is None or not dense.values or not tested:
        return None
    p_values = dict(zip(tested, holm([welch(c, t, better) for t, c in tested.values()]), strict=True))
    sign, allowed = -1 if better == "higher" else 1, tolerance or default_tolerance(dense)
    found: tuple[float | None, float | None] = (None, None)
    for number, (ticket, _) in pairs.items():
        if number not in tested or ticket.collapsed or sign * (ticket.mean - dense.mean) > allowed:
            break
        if p_values[number] < SIGNIFICANCE:
            found = ticket.sparsity, p_values[number]
    return Winning(pruned, found[0], dense, allowed, found[1])


def table(points: list[Point]) -> tuple[list[str], list[list[str]]]:
    """Header and rows for one choice of pruned components: sparsity down, one column an arm, cells `mean ± std`."""
    arms = list(dict.fromkeys(p.arm for p in points))
    rows = []
    for sparsity in sorted({round(p.sparsity, 4) for p in points}):
        here = {p.arm: p for p in points if round(p.sparsity, 4) == sparsity}
        rows.append([f"{sparsity:.2%}", *(cell(here[arm]) if arm in here else "" for arm in arms)])
    return ["sparsity", *arms], rows


def cell(point: Point) -> str:
    """`mean ± std` with two digits of the standard deviation, and how many seeds are left out."""
    lost = f"{point.collapsed} of {len(point.values) + point.collapsed} {point.lost}" if point.collapsed else ""
    if not point.values:
        return lost
    if point.std:
        decimals = max(0, 1 - math.floor(math.log10(point.std)))
        text = f"{point.mean:.{decimals}f} ± {point.std:.{decimals}f}"
    else:
        text = f"{point.mean:.4g} ± 0"
    return text + (f" ({lost})" if lost else "")


def sentence(win: Winning, metric: str) -> str:
    """The winning sparsity in words."""
    if win.sparsity is None:
        found = "Undecided" if len(win.dense.values) < STRICT_SEEDS else "No winning ticket"
        return (
            f"{found} by {metric} (pruned: {win.pruned}). At no sparsity is it within {win.tolerance:.3g} of "
            f"the dense {win.dense.mean:.4g} and the random ticket significantly worse."
        )
    return (
        f"winning_sparsity by {metric} (pruned: {win.pruned}): {win.sparsity:.2%}. There the winning ticket is "
        f"within {win.tolerance:.3g} of the dense {win.dense.mean:.4g}, and the random ticket worse "
        f"(Welch p = {win.p_value:.2g})."
    )


def strict_sentence(win: Winning, metric: str) -> str:
    """The sparsity of the stricter rule in words."""
    head = f"strict_winning_sparsity by {metric} (pruned: {win.pruned}): "
    if win.sparsity is None:
        return head + "none, with Holm's correction over the sparsities tested."
    return (
        f"{head}{win.sparsity:.2%}. Up to there the winning ticket is within {win.tolerance:.3g} of the dense network "
        f"throughout, and there the random ticket is worse (Holm-corrected p = {win.p_value:.2g})."
    )
