"""The paper's Table 2 from results.csv: what every way to a smaller network reaches, and what it costs."""

import csv
import io
import statistics
from typing import NamedTuple

from lotto_jax.experiments.run_directory import Result
from lotto_jax.reports import summary

METHODS = {
    "dense": "unpruned",
    "winning": "IMP",
    "early_bird": "early bird",
    "early_bird_mixed": "early bird, mixed precision",
    "snip": "SNIP",
    "grasp": "GraSP",
}
COSTS = ("weights", "nonzero_weights", "flops", "training_seconds", "compilation_seconds", "found_step")
LABELS = {
    "nonzero_weights": "of them not 0",
    "flops": "training FLOPs",
    "training_seconds": "training (s)",
    "compilation_seconds": "compilation (s)",
    "found_step": "found at step",
}


class Row(NamedTuple):
    """One method at one compression: `values` are over seeds, by metric; a collapsed seed has no quality."""

    method: str
    compression: float
    values: dict[str, tuple[float, ...]]

    def mean(self, metric: str) -> float:
        """Mean over seeds; NaN if there is none."""
        values = self.values.get(metric, ())
        return statistics.fmean(values) if values else float("nan")

    def std(self, metric: str) -> float:
        """Sample standard deviation over seeds; 0 for one."""
        values = self.values.get(metric, ())
        return statistics.stdev(values) if len(values) > 1 else 0.0


def rows(results: list[Result]) -> list[Row]:
    """Methods in the order of `METHODS`, each by compression: the share of channels, or of weights, that is removed."""
    found: dict[tuple[str, float], dict[str, tuple[float, ...]]] = {}
    for metric in summary.metrics(results):
        for point in summary.points(results, metric):
            if point.arm in METHODS:
                values = found.setdefault((point.arm, round(point.sparsity, 4)), {})
                values[metric] = point.values
    order = list(METHODS)
    ranked = sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    return [Row(METHODS[arm], compression, values) for (arm, compression), values in ranked]


def quality(results: list[Result]) -> list[str]:
    """The metrics that are not costs."""
    return [metric for metric in summary.metrics(results) if metric not in COSTS]


def judged_by(results: list[Result]) -> str:
    """The metric that Figure 7 shows: a Frechet distance if there is one, else the first that has better and worse."""
    names = quality(results)
    directed = [name for name in names if name not in summary.UNDIRECTED] or names
    return next((name for name in names if name.startswith(("fid", "fd_"))), directed[0])


def table(results: list[Result]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: `mean ± std` of quality, and of costs the mean, with their ratio to the unpruned network's."""
    metrics = quality(results)
    header = ["method", "compression", *metrics, "weights", *LABELS.values()]
    found = rows(results)
    dense = next((row for row in found if row.method == METHODS["dense"]), None)

    def cost(row: Row, metric: str) -> str:
        if metric == "nonzero_weights" and metric not in row.values:
            metric = "weights"  # of a compacted network all are kept
        if not row.values.get(metric):
            return ""
        value = row.mean(metric)
        if metric == "found_step":
            return "not found" if min(row.values[metric]) < 0 else f"{value:.0f}"
        number = f"{value:,.0f}" if metric.endswith("weights") else f"{value:.3g}"
        of_dense = dense.mean("weights" if metric.endswith("weights") else metric) if dense else float("nan")
        return number + (f" ({value / of_dense:.0%})" if of_dense > 0 and metric != "compilation_seconds" else "")

    lines = []
    for row in found:
        made = [_mean_and_std(row, metric) for metric in metrics]
        costs = [cost(row, metric) for metric in COSTS]
        lines.append([row.method, "" if row.compression == 0 else f"{row.compression:.1%}", *made, *costs])
    return header, lines


def _mean_and_std(row: Row, metric: str) -> str:
    return f"{row.mean(metric):.4g} ± {row.std(metric):.2g}" if row.values.get(metric) else ""


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
        cells = [[row.mean(m), row.std(m), len(row.values.get(m, ()))] for m in metrics]
        numbers = [f"{x:.9g}" for cell in cells for x in cell]
        writer.writerow([row.method, f"{row.compression:.9g}", *numbers])
    return text.getvalue()
