"""How fast tickets converge (Figure 2), from their curves, and how stable they are over seeds (section 1)."""

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lotto_jax.reports import charts, curves, figures, markup, panels, sections, summary, tables
from lotto_jax.reports.source import Section, Source
from lotto_jax.reports.summary import Point
from lotto_jax.reports.tables import Table
from lotto_jax.runs import curves as logs

WINDOW = 5  # points of a curve averaged
SHARE = 0.05  # of the whole fall of a curve; what is left to fall when training would stop
BY_TRAINING = f"""\
The first step at which the training loss, a mean over {WINDOW} recorded points, has all but {SHARE:.0%} of its fall
behind it, as a training loss is lowest at the end; config.evaluation.points records held-out ones. A ticket that learns
little is done early, too: read it beside the losses."""
BY_HELD_OUT = """\
The step at which the held-out loss is lowest, of those at which config.evaluation.points had it measured. A ticket that
learns little is done early, too: read it beside the losses."""


def early_stopping_step(
    step: Int[np.ndarray, "points"], loss: Float[np.ndarray, "points"], window: int = WINDOW, share: float = SHARE
) -> int:
    """The step after which a curve hardly falls (the early-stopping iteration of Figure 2).

    The paper does not say how it finds the iteration. Frankle and Carbin (ICLR 2019), whom it follows, take the minimum
    of the validation loss, which is `share` 0; a training loss has its minimum at the end, so the step is the first at
    which the loss is above its minimum by no more than `share` of its fall from the first mean to the minimum.

    Args:
      step: of each point, ascending.
      loss: at these steps, lower is better.
      window: points in a mean, as losses of batches are noisy; fewer where the curve is shorter. A mean counts at its
        last point.
      share: of the fall.
    """
    window = min(window, len(loss))
    means = np.lib.stride_tricks.sliding_window_view(loss, window).mean(-1)
    enough = means.min() + share * (means[0] - means.min())
    return int(step[window - 1 + int(np.argmax(means <= enough))])


def early_stopping(
    log: Iterable[Mapping[str, Any]], name: str, window: int = WINDOW, share: float = SHARE
) -> list[Point]:
    """Early-stopping steps grouped over seeds, by pruned components, arm and sparsity, from points of curves.

    A curve without a finite value (of a GAN that collapsed) has none, and counts as collapsed.
    """
    own: dict[tuple, list[tuple[int, float]]] = defaultdict(list)
    for p in log:
        if name in p:
            own[p["pruned"], p["arm"], p["round"], p["sparsity"], p["seed"]].append((p["step"], p[name]))
    groups: dict[tuple, list[tuple[float, float]]] = defaultdict(list)
    for (pruned, arm, number, sparsity, _), curve in own.items():
        step, loss = np.array(sorted(curve)).T
        finite = np.isfinite(loss)
        found = early_stopping_step(step[finite].astype(int), loss[finite], window, share) if finite.any() else np.nan
        groups[pruned, arm, number, round(sparsity, 4)].append((sparsity, found))
    made = []
    for (pruned, arm, number, _), seeds in groups.items():
        values = tuple(float(found) for _, found in seeds if np.isfinite(found))
        made.append(Point(pruned, arm, number, seeds[0][0], values, len(seeds) - len(values)))
    return made


def interval(values: tuple[float, ...], level: float = 0.95) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean over seeds (Efron 1979); None with fewer than two seeds.

    Few seeds make it too narrow: resamples never leave the range of what was measured.
    """
    from scipy import stats  # a third of a second, which every command would wait for

    if len(values) < 2:
        return None
    found = stats.bootstrap(
        (values,), np.mean, confidence_level=level, method="percentile", rng=np.random.default_rng(0), n_resamples=2000
    ).confidence_interval
    return float(found.low), float(found.high)


class Stops(NamedTuple):
    """Early-stopping steps by one loss: its name in words, points, and how the steps were found."""

    loss: str
    points: list[Point]
    explanation: str

    @property
    def panels(self) -> list[panels.Panel]:
        """Steps against sparsity."""
        return panels.of_metric(self.points, f"early-stopping step by {self.loss}", [])


def stops(source: Source) -> list[Stops]:
    """Early-stopping steps of a run by each loss: held-out where it is recorded, else of training."""
    if held_out := logs.read(source.path, logs.HELD_OUT):
        losses = [name for name in curves.names(held_out) if source.measured(name).get("better") == "lower"]
        found = [Stops(name, early_stopping(held_out, name, 1, 0.0), BY_HELD_OUT) for name in losses]
    else:
        log = logs.read(source.path)
        # A curve that no metric declares is a loss; those of a game of two networks have no better and worse.
        losses = [name for name in curves.names(log) if source.measured(name).get("better", "lower") == "lower"]
        found = [Stops(f"training {name}", early_stopping(log, name), BY_TRAINING) for name in losses]
    return [own for own in found if any(panels.in_rounds(p.arm) and p.values for p in own.points)]


def convergence(source: Source) -> list[Section]:
    """Early-stopping step against sparsity, by each loss."""
    return [_section(source, *own) for own in stops(source)]


def _section(source: Source, loss: str, points: list[Point], explanation: str) -> Section:
    title, name = f"Early stopping by {loss}", f"{loss.replace(' ', '_')}_early_stopping"
    shown = Stops(loss, points, explanation).panels
    files = source.draw(name, functools.partial(figures.against_sparsity, shown, source.title))
    body = [charts.html([charts.against_sparsity(panel) for panel in shown], title, files)]
    body.append(sections.paragraph(explanation))
    text = ["", f"{title} (step, mean ± standard deviation over seeds)"]
    for choice in panels.choices(points):
        header, rows = summary.table([p for p in points if p.pruned == choice or p.arm == "dense"])
        caption = f"early-stopping step, {choice} pruned: mean ± standard deviation over seeds"
        table = Table(header, rows, f"{name}_{choice}", caption)
        text += ["", f"{choice} pruned:", *tables.as_text(table)]
        body.append(tables.as_html(table))
        files = [*files, *tables.write(table, source.tables)]
    return Section(text, body, files, title)


def stability(source: Source) -> list[Section]:
    """For every metric the bootstrap intervals of all arms, as tables of the page."""
    body, files = [], []
    for metric in summary.metrics(source.results):
        points = summary.points(source.results, metric)
        intervals = {(p.pruned, p.arm, p.round, round(p.sparsity, 4)): interval(p.values) for p in points}
        if not any(intervals.values()):
            continue
        rows = []
        for p in sorted(points, key=lambda p: (p.pruned, round(p.sparsity, 4), p.arm)):
            if found := intervals[p.pruned, p.arm, p.round, round(p.sparsity, 4)]:
                low, high = found
                cells = [f"{p.sparsity:.2%}", p.arm, str(len(p.values)), summary.cell(p), f"{low:.4g} to {high:.4g}"]
                rows.append([p.pruned, *cells])
        header = ["pruned", "sparsity", "arm", "seeds", "mean ± std", "95 % interval of the mean"]
        table = Table(header, rows, f"{metric}_stability", f"{panels.words(metric)}: spread over seeds", text=(0, 2))
        files += tables.write(table, source.tables)
        body.append(
            markup.render("folded.html", summary=panels.words(metric), body=[tables.as_html(table)], open=False)
        )
    if not body:
        return []
    said = "Percentile bootstrap over seeds; with few seeds the intervals are too narrow."
    return [Section([], [sections.paragraph(said), *body], files, "Stability over seeds")]
