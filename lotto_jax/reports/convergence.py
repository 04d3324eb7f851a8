"""How fast tickets converge (Figure 2), from their curves, and how stable they are over seeds (section 1)."""

import html
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from lotto_jax.reports import figures, summary
from lotto_jax.reports.sections import Section, Source, aligned, embedded, html_table
from lotto_jax.reports.summary import Point
from lotto_jax.runs import curves

WINDOW = 5  # points of a curve averaged
SHARE = 0.05  # of the whole fall of a curve; what is left to fall when training would stop
COLUMNS = ("position", "pruned", "round", "arm", "seed", "sparsity", "step")
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
    if len(values) < 2:
        return None
    found = stats.bootstrap(
        (values,), np.mean, confidence_level=level, method="percentile", rng=np.random.default_rng(0), n_resamples=2000
    ).confidence_interval
    return float(found.low), float(found.high)


def convergence(source: Source) -> list[Section]:
    """Early-stopping step against sparsity, by each loss: held-out where it is recorded."""
    if held_out := curves.read(source.path, curves.HELD_OUT):
        names = [name for name in held_out[-1] if name not in COLUMNS]
        losses = [name for name in names if source.measured(name).get("better") == "lower"]
        found = {name: early_stopping(held_out, name, 1, 0.0) for name in losses}
        return [section for name in found for section in _section(source, found[name], name, BY_HELD_OUT)]
    log = curves.read(source.path)
    names = [name for name in (log[-1] if log else {}) if name not in COLUMNS]
    # A curve that no metric declares is a loss; those of a game of two networks have no better and worse.
    losses = [name for name in names if source.measured(name).get("better", "lower") == "lower"]
    found = {f"training {name}": early_stopping(log, name) for name in losses}
    return [section for name in found for section in _section(source, found[name], name, BY_TRAINING)]


def _section(source: Source, points: list[Point], loss: str, explanation: str) -> list[Section]:
    if not any(figures.in_rounds(p.arm) and p.values for p in points):
        return []
    title = f"Early stopping by {loss}"
    path = source.figure(f"{loss.replace(' ', '_')}_early_stopping")
    files = figures.against_sparsity(points, f"early-stopping step by {loss}", [], source.title, path)
    body = [f"<h2>{html.escape(title)}</h2>", embedded(files), f"<p>{explanation}</p>"]
    text = ["", f"{title} (step, mean ± standard deviation over seeds)"]
    for choice in dict.fromkeys(p.pruned for p in points if figures.in_rounds(p.arm)):
        header, rows = summary.table([p for p in points if p.pruned == choice or p.arm == "dense"])
        text += ["", f"{choice} pruned:", *aligned(header, rows)]
        body += [f"<h3>{choice} pruned</h3>", html_table(header, rows)]
    return [Section(text, body, files)]


def stability(source: Source) -> list[Section]:
    """For every metric the bootstrap intervals of all arms, as tables of the page."""
    body = []
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
        body += [f"<h3>{html.escape(metric)}</h3>", html_table(header, rows)]
    if not body:
        return []
    words = "Percentile bootstrap over seeds; with few seeds the intervals are too narrow."
    return [Section([], ["<h2>Stability over seeds</h2>", f"<p>{words}</p>", *body])]
