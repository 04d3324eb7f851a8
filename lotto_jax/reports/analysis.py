"""What `lotto-jax analyse` found out, as a figure and a table for each choice of pruned components."""

import functools
import math
import statistics
from collections import defaultdict
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lotto_jax.analysis import ALL
from lotto_jax.reports.figures import COLORS, save
from lotto_jax.reports.sections import Section, Source, aligned, embedded, html_table, paragraph
from lotto_jax.runs import analysis as stored
from lotto_jax.runs.analysis import Row

TITLE = "Why tickets win"
EXPLANATION = """\
Means over seeds and pairs of seeds by round, round 0 being the dense network; bars are one standard deviation. Left
above: how far the loss on the straight line between two trained networks rises above its ends, between the tickets of
successive rounds and between copies of one ticket that saw the data in other orders. Then: how far masks keep the same
weights (by chance: masks that keep as many of each layer), weights whose signs agree, the way that kept weights travel
over their length at the start, units that answer to no held-out image, and weights left in each layer."""
# Panels: label of the axis, and for each line its label, quantity and arm (empty: each arm has a line).
LINES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "loss barrier": (("successive rounds", "barrier_rounds", "winning"), ("siblings", "barrier_siblings", "")),
    "Jaccard index of masks": (
        ("two seeds", "jaccard_seeds", "winning"),
        ("two seeds, aligned", "jaccard_seeds_aligned", "winning"),
        ("two seeds, by chance", "jaccard_seeds_expected", "winning"),
        ("", "jaccard_arms", ""),
    ),
    "share of equal signs": (
        ("snapshot and trained", "signs_snapshot", "winning"),
        ("two seeds", "signs_seeds", "winning"),
        ("two seeds, aligned", "signs_seeds_aligned", "winning"),
    ),
    "relative distance": (("", "distance_relative", ""),),
    "share of dead units": (("", "dead_share", ""),),
}
TABLE = {
    "barrier_rounds": "barrier: rounds",
    "barrier_siblings": "siblings",
    "jaccard_seeds": "Jaccard: seeds",
    "jaccard_seeds_aligned": "aligned",
    "jaccard_seeds_expected": "by chance",
    "signs_snapshot": "signs: snapshot",
    "signs_seeds_aligned": "seeds, aligned",
    "distance_relative": "distance",
    "dead_units": "dead units",
}
Line = dict[int, list[float]]  # by round, the values of all seeds


def analysis(source: Source) -> list[Section]:
    """The section of analysis.csv; none where the run has no such file."""
    rows, made = stored.read(source.path), []
    choices = list(dict.fromkeys(row.pruned for row in rows))
    for pruned in choices:
        # The dense network and the snapshot are those of every choice.
        own = [row for row in rows if row.pruned == pruned or row.round == 0]
        if any(row.round for row in own):
            made.append(_section(source, own, pruned, len(choices) > 1))
    return made


def _section(source: Source, rows: list[Row], pruned: str, several: bool) -> Section:
    title = f"{TITLE} ({pruned} pruned)" if several else TITLE
    name = f"analysis_{pruned}" if several else "analysis"
    files = source.draw(name, functools.partial(draw, rows), always=True)
    table = _table(rows)
    body = [paragraph(EXPLANATION), embedded(files, title), html_table(*table)]
    return Section(["", f"{title} (winning tickets, means over seeds)", *aligned(*table)], body, files, title)


def _lines(rows: list[Row], quantity: str, layer: str = ALL) -> dict[str, Line]:
    """By arm, the values of a quantity; tickets that no round made, one-shot tickets, are left out."""
    found: dict[str, Line] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if (row.quantity, row.layer) == (quantity, layer) and "one_shot" not in row.arm and math.isfinite(row.value):
            found[row.arm][row.round].append(row.value)
    return found


def _winning(rows: list[Row], quantity: str, arm: str = "winning") -> Line:
    """Of one arm, whose round 0 is the dense network, or of all siblings."""
    lines = _lines(rows, quantity)
    if quantity == "barrier_siblings":
        merged: Line = defaultdict(list)
        for line in lines.values():
            for number, values in line.items():
                merged[number] += values
        return merged
    return {0: lines["dense"][0]} | lines[arm] if 0 in lines.get("dense", {}) else lines.get(arm, {})


def _table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, one a round."""
    columns = {name: _winning(rows, name) for name in TABLE}
    columns = {name: line for name, line in columns.items() if any(line.values())}
    sparsities = {row.round: row.sparsity for row in rows if row.arm in ("winning", "dense", "snapshot")}
    cell = lambda values: f"{statistics.fmean(values):.4g}" if values else ""  # noqa: E731
    body = [
        [str(number), f"{sparsity:.2%}", *(cell(line.get(number, [])) for line in columns.values())]
        for number, sparsity in sorted(sparsities.items())
    ]
    return ["round", "sparsity", *(TABLE[name] for name in columns)], body


def draw(rows: list[Row], path: Path) -> list[Path]:
    """Six panels by round, as PNG and SVG where `path` has no suffix, else as PDF."""
    figure = Figure(figsize=(15, 7.5))
    panels = figure.subplots(2, 3, gridspec_kw={"wspace": 0.3, "hspace": 0.28}).flat
    for axes, (label, lines) in zip(panels, LINES.items(), strict=False):
        for name, quantity, arm in lines:
            if name:
                _line(axes, _winning(rows, quantity, arm or "winning"), name, None)
                continue
            for own, line in _lines(rows, quantity).items():
                if own not in ("dense", "snapshot"):
                    _line(axes, line, own.replace("_", " "), COLORS.get(own))
                elif own == "dense" and line.get(0):
                    axes.axhline(statistics.fmean(line[0]), color="black", linewidth=1, label="dense")
        _finish(axes, label)
    *_, last = figure.axes
    for layer in dict.fromkeys(row.layer for row in rows if row.quantity == "weights_left" and row.layer != ALL):
        _line(last, _lines(rows, "weights_left", layer).get("winning", {}), layer, None)
    last.set_yscale("symlog", linthresh=1)  # a layer may have nothing left
    _finish(last, "weights left")
    return save(figure, path)


def _line(axes: Axes, line: Line, label: str, color: str | None) -> None:
    there = {number: values for number, values in sorted(line.items()) if values}
    means = [statistics.fmean(values) for values in there.values()]
    spread = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in there.values()]
    if there:
        axes.errorbar(list(there), means, spread, label=label, color=color, marker=".", linewidth=1.3, capsize=2)


def _finish(axes: Axes, label: str) -> None:
    axes.set(xlabel="round", ylabel=label)
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False)
    else:
        axes.set_axis_off()
