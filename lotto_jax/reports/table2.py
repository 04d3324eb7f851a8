"""The paper's Table 2 from results.csv: what every way to a smaller network reaches, and what it costs."""

import csv
import io
import math
from collections.abc import Mapping
from typing import NamedTuple

from lotto_jax.reports import summary
from lotto_jax.runs.results import Result

METHODS = {
    "dense": "unpruned",
    "winning": "IMP",
    "early_bird": "early bird",
    "early_bird_mixed": "early bird, mixed precision",
    "snip": "SNIP",
    "grasp": "GraSP",
}
COSTS = (
    "weights",
    "nonzero_weights",
    "flops",
    "training_seconds",
    "compilation_seconds",
    "step_memory_mib",
    "channels_removed",
    "found_step",
)
LABELS = {
    "nonzero_weights": "of them not 0",
    "flops": "training FLOPs",
    "training_seconds": "training (s)",
    "compilation_seconds": "compilation (s)",
    "step_memory_mib": "memory of a step (MiB)",
    "channels_removed": "channels removed",
    "found_step": "found at step",
}


NOTHING = summary.Point("", "", 0, 0.0, ())


class Row(NamedTuple):
    """One method at one compression, the share of channels, or of weights, that is removed; its points by metric."""

    method: str
    compression: float
    points: dict[str, summary.Point]

    def mean(self, metric: str) -> float:
        """Mean over seeds; NaN if there is none."""
        return self.points[metric].mean if metric in self.points else math.nan


def rows(results: list[Result]) -> list[Row]:
    """Methods in the order of `METHODS`, each by compression. A collapsed seed has costs, but no quality."""
    found: dict[tuple[str, float], dict[str, summary.Point]] = {}
    trained = [r for r in results if r.metric != summary.COLLAPSED]
    for metric in summary.metrics(results):
        for point in summary.points(trained if metric in COSTS else results, metric):
            if point.arm in METHODS:
                found.setdefault((point.arm, round(point.sparsity, 4)), {})[metric] = point
    order = list(METHODS)
    ranked = sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    return [Row(METHODS[arm], compression, points) for (arm, compression), points in ranked]


def quality(results: list[Result]) -> list[str]:
    """The metrics that are not costs."""
    return [metric for metric in summary.metrics(results) if metric not in COSTS]


def judged_by(results: list[Result], better: Mapping[str, str]) -> str:
    """The metric that Figure 7 shows: a Frechet distance if there is one, else the first that has better and worse."""
    names = quality(results)
    directed = [name for name in names if better[name] != "neither"] or names
    return next((name for name in names if name.startswith(("fid", "fd_"))), directed[0])


def table(results: list[Result]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: `mean ± std` of quality, and of costs the mean, with their ratio to the unpruned network's."""
    metrics = quality(results)
    header = ["method", "compression", *metrics, "weights", *LABELS.values()]
    found = rows(results)
    dense = next((row for row in found if row.method == METHODS["dense"]), None)

    def cost(row: Row, metric: str) -> str:
        if metric == summary.FOUND:
            return _found(row)
        if metric == "nonzero_weights" and metric not in row.points:
            metric = "weights"  # of a compacted network all are kept
        if metric not in row.points:
            return ""
        value = row.mean(metric)
        number = f"{value:,.0f}" if metric.endswith("weights") else f"{value:.3g}"
        of_dense = dense.mean("weights" if metric.endswith("weights") else metric) if dense else math.nan
        return number + (f" ({value / of_dense:.0%})" if of_dense > 0 and metric != "compilation_seconds" else "")

    lines = []
    for row in found:
        made = [summary.cell(row.points[metric]) if metric in row.points else "" for metric in metrics]
        costs = [cost(row, metric) for metric in COSTS]
        lines.append([row.method, "" if row.compression == 0 else f"{row.compression:.1%}", *made, *costs])
    return header, lines


def _found(row: Row) -> str:
    """The mean step, and how many seeds found no ticket; nothing for methods that do not search."""
    point = row.points.get(summary.FOUND, NOTHING)
    mean = f"{point.mean:.0f}" if point.values else ""
    return " ".join(text for text in (mean, f"({point.collapsed} not found)" if point.collapsed else "") if text)


def as_markdown(header: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    whole = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in whole)


def as_csv(results: list[Result]) -> str:
    """Every row with mean, standard deviation and number of seeds of every metric."""
    metrics = [*quality(results), *COSTS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "compression"] + [f"{m}{end}" for m in metrics for end in ("", "_std", "_seeds")])
    for row in rows(results):
        points = [row.points.get(metric, NOTHING) for metric in metrics]
        numbers = [f"{x:.9g}" for p in points for x in (p.mean, p.std, len(p.values))]
        writer.writerow([row.method, f"{row.compression:.9g}", *numbers])
    return text.getvalue()
