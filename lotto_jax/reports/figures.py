"""Figures as PNG and SVG, or PDF for a paper: metric against sparsity or costs, training curves, image grids."""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lotto_jax.reports.curves import Curves
from lotto_jax.reports.panels import Line, Panel, compared, words
from lotto_jax.reports.table2 import Row

COLORS = {"winning": "tab:green", "random": "tab:red", "random_pruned": "tab:gray", "one_shot": "tab:orange"}
COLORS |= {
    "snip": "tab:blue",
    "grasp": "tab:brown",
    "transfer": "tab:cyan",
    "first": "tab:blue",
    "second": "tab:purple",
}
COLORS |= {"rewound_to_0": "tab:olive"}
MARKERS = {"winning": "o", "random": "x", "random_pruned": "^", "one_shot": "s", "snip": "v", "grasp": "d"}
MARKERS |= {"transfer": "P", "first": "<", "second": ">", "rewound_to_0": "D"}
FONTS: Any = {"pdf.fonttype": 42, "ps.fonttype": 42}  # TrueType, which publishers take; the default is Type 3
MARKED = "#c62828"  # the row of the winning ticket in a grid, red as in the paper


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and SVG, or as PDF if that is the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path] if path.suffix == ".pdf" else [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    with matplotlib.rc_context(FONTS):
        for file in files:
            figure.savefig(file, dpi=150, bbox_inches="tight")
    return files


def _sparsity_axis(axes: Axes, panel: Panel) -> None:
    """Label measured sparsities, as many as fit."""
    chosen = panel.ticks()
    axes.set_xticks([panel.position(s) for s in chosen], [f"{100 * s:.3g}" for s in chosen])
    axes.set_xlabel("sparsity of the network (%)")


def against_sparsity(panels: Sequence[Panel], title: str, path: Path) -> list[Path]:
    """A metric against sparsity for every arm, a panel for each choice of components, with one y axis.

    Error bars are one standard deviation over seeds; the gray band is the dense network's. Rounds are equally spaced.
    """
    figure = Figure(figsize=(2.2 + 4.8 * len(panels), 4.2))
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False, gridspec_kw={"wspace": 0.05})[0]
    for axes, panel in zip(row, panels, strict=True):
        _panel(axes, panel)
    low, high = zip(*(panel.range() for panel in panels), strict=True)
    row[0].set_ylim(min(low), max(high))
    row[0].set_ylabel(words(panels[0].metric))
    figure.suptitle(title, fontsize=10)
    _legend(list(row), row[-1])
    return save(figure, path)


def of_runs(panels: Sequence[Panel], path: Path, missing: Sequence[str] = ()) -> list[Path]:
    """Panels of several runs, each with a y axis of its own (Figures 3 to 6), and empty ones with these titles."""
    count = len(panels) + len(missing)
    columns = min(4, count)
    figure = Figure(figsize=(1.5 + 3.6 * columns, 3.3 * math.ceil(count / columns)))
    grid = figure.subplots(
        math.ceil(count / columns), columns, squeeze=False, gridspec_kw={"wspace": 0.32, "hspace": 0.5}
    )
    for axes, panel in zip(grid.flat, panels, strict=False):
        _panel(axes, panel)
        axes.set_ylabel(words(panel.metric), fontsize=9)
    for axes, title in zip(grid.flat[len(panels) :], missing, strict=False):
        axes.set_title(title, fontsize=10)
        axes.text(0.5, 0.5, "missing", ha="center", va="center", color="gray", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    _legend(list(grid.flat[: len(panels)]), grid[0, -1])
    return save(figure, path)


def _panel(axes: Axes, panel: Panel) -> None:
    """The dense network, a line for every arm, and the winning sparsity."""
    if (dense := panel.dense) is not None:
        band = dense.mean - dense.std, dense.mean + dense.std
        axes.axhline(dense.mean, color="black", linewidth=1, label="dense")
        if dense.std:
            axes.axhspan(*band, color="black", alpha=0.12, linewidth=0, label="dense, one std")
    for line in panel.lines:
        _line(axes, panel, line)
    ends = [panel.position(end) for end in (panel.sparsities[0], panel.sparsities[-1])]
    for win in panel.wins:
        if win.sparsity is not None:
            place = panel.position(win.sparsity)
            _mark(axes, place, win.sparsity, 2 * place < sum(ends))
    if panel.title:
        axes.set_title(panel.title, fontsize=10)
    _sparsity_axis(axes, panel)
    axes.grid(alpha=0.25)
    axes.set_ylim(*panel.range())


def _line(axes: Axes, panel: Panel, line: Line) -> None:
    axes.errorbar(
        [panel.position(p.sparsity) for p in line.points],
        [p.mean for p in line.points],
        [p.std for p in line.points],
        color=COLORS.get(line.style, "tab:purple"),
        linestyle="-" if line.style == "winning" else "--",
        marker=MARKERS.get(line.style, "o"),
        markersize=4,
        linewidth=1.4,
        capsize=2,
        label=line.label,
    )


def _legend(sources: list[Axes], target: Axes) -> None:
    """The lines of these panels, explained to the right of one."""
    known: dict[str, Any] = {}
    for source in sources:
        for handle, label in zip(*source.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    if known:
        place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        target.legend(list(known.values()), list(known), fontsize=8, frameon=False, **place)


def _mark(axes: Axes, place: float, sparsity: float, left: bool) -> None:
    """A band and a word at the winning sparsity; `left` is where it lies, so that the text goes the other way."""
    axes.axvline(place, color=COLORS["winning"], alpha=0.3, linewidth=6)
    axes.annotate(
        f"winning ticket: {sparsity:.1%}",
        (place, 0.97),
        xycoords=("data", "axes fraction"),
        ha="left" if left else "right",
        va="top",
        xytext=(6 if left else -6, 0),
        textcoords="offset points",
        fontsize=9,
    )


def training_curves(groups: Sequence[Curves], name: str, path: Path) -> list[Path]:
    """Means of `name` over seeds while training, a panel for each arm, a line for each sparsity."""
    figure = Figure(figsize=(4.5 * len(groups), 3.6))
    axes = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for panel, group in zip(axes, groups, strict=True):
        shades = ["black", *_shades(len(group.lines) - 1)]
        for color, (label, steps, means) in zip(shades, group.lines, strict=True):
            panel.plot(steps, means, color=color, linewidth=1.2, label=label)
        panel.set_title(_tickets(group.arm), fontsize=10)
        panel.set_xlabel("step")
        panel.grid(alpha=0.25)
    if all(mean > 0 for group in groups for _, _, means in group.lines for mean in means):
        axes[0].set_yscale("log")  # Wasserstein and hinge losses may be negative
    axes[0].set_ylabel(f"training {words(name)}")
    if len(groups[0].lines) > 1:
        axes[-1].legend(fontsize=8, frameon=False, title="sparsity", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save(figure, path)


def _tickets(arm: str) -> str:
    return "the dense network" if arm == "dense" else f"{words(arm)} tickets"


def _shades(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](0.85 * i / max(count - 1, 1)) for i in range(count)]  # the rest is too pale


def mask_distances(history: dict[str, np.ndarray], early_bird: dict[str, Any], path: Path) -> list[Path]:
    """Distances of channel masks during a search: within the look-back window over training, and between all pairs.

    Left, a line for each compression, the mean over seeds; right, the first seed at the middle compression (the overlap
    figure of You et al. 2020).

    Args:
      history: channel_masks.safetensors of a run: `channels`, and for each step bits [seeds, compressions, channels].
      early_bird: its section of the configuration.
      path: where to write, without suffix.
    """
    steps = sorted(int(name) for name in history if name != "channels")
    count = int(history["channels"])
    masks = np.stack([np.unpackbits(history[str(step)], axis=-1, count=count) for step in steps])
    window = early_bird["lookback"] - 1
    farthest = np.stack(  # [steps - 1, seeds, compressions]
        [np.mean(masks[max(0, i - window) : i] != masks[i], axis=-1).max(0) for i in range(1, len(masks))]
    ).mean(1)
    figure = Figure(figsize=(9.5, 3.8))
    lines, matrix = figure.subplots(1, 2, gridspec_kw={"wspace": 0.3})
    compressions = early_bird["compressions"]
    for color, compression, line in zip(_shades(len(compressions)), compressions, farthest.T, strict=True):
        lines.plot(steps[1:], line, color=color, marker=".", label=f"{compression:.0%}")
    lines.axhline(early_bird["threshold"], color="black", linewidth=1, linestyle="--", label="threshold")
    lines.set(xlabel="step", ylabel="largest distance in the look-back window", ylim=(0, None))
    lines.grid(alpha=0.25)
    lines.legend(fontsize=8, frameon=False, title="channels removed")
    middle = len(compressions) // 2
    own = masks[:, 0, middle]
    pairs = np.stack([np.mean(own != mask, axis=-1) for mask in own])
    half = steps[0] / 2
    extent = (steps[0] - half, steps[-1] + half, steps[-1] + half, steps[0] - half)
    shown = matrix.imshow(pairs, cmap="viridis", vmin=0, extent=extent)
    matrix.set(xlabel="step", ylabel="step")
    matrix.set_title(f"distance of two masks, {compressions[middle]:.0%} of channels removed", fontsize=10)
    figure.colorbar(shown, ax=matrix, shrink=0.85)
    return save(figure, path)


def costs(rows: list[Row], metric: str, path: Path) -> list[Path]:
    """Quality against FLOPs, FLOPs and training time against compression (the paper's Figure 7), a line a method.

    Args:
      rows: of Table 2.
      metric: the quality that the first panel shows.
      path: where to write, without suffix.
    """
    figure = Figure(figsize=(13, 3.8))
    panels = figure.subplots(1, 3, gridspec_kw={"wspace": 0.3})
    named = {"flops": "FLOPs of training", "training_seconds": "seconds of training", "compression": "compression"}
    shown = [("flops", metric), ("compression", "flops"), ("compression", "training_seconds")]
    for axes, (x, y) in zip(panels, shown, strict=True):
        for number, method in enumerate(dict.fromkeys(row.method for row in rows)):
            line = [row for row in rows if row.method == method and row.points.get(y)]
            axes.errorbar(
                [row.compression if x == "compression" else row.mean(x) for row in line],
                [row.mean(y) for row in line],
                [row.points[y].std for row in line],
                color=f"C{number}",
                marker="*" if len(line) == 1 else "o",
                markersize=10 if len(line) == 1 else 4,
                linewidth=1.4,
                capsize=2,
                label=method,
            )
        axes.set(xlabel=named.get(x, x), ylabel=named.get(y, y))
        if x == "compression":
            axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
    panels[0].legend(fontsize=8, frameon=False)
    return save(figure, path)


def image_grid(pictures: dict[str, np.ndarray], path: Path, winning: float | None = None) -> list[Path]:
    """Images of winning (left) and random tickets (right), or of other arms, sparser downwards (Figures A.6 to A.8).

    Args:
      pictures: `<arm>/<sparsity>`, each uint8 [n, height, width, channels], and `original`, for the first row, if they
        are reconstructions.
      path: where to write, without suffix.
      winning: sparsity of the row that is marked: the drawn one at this sparsity, or the next below it.
    """
    by_arm: dict[str, dict[float, np.ndarray]] = defaultdict(dict)
    for name, images in pictures.items():
        if "/" in name:
            arm, sparsity = name.split("/")
            by_arm[arm][float(sparsity)] = images
    arms = compared(list(by_arm))
    sparsities = sorted({s for arm in arms for s in by_arm[arm] if arm != "dense"})
    dense = by_arm["dense"]
    rows = [("original", [pictures["original"]] * len(arms))] if "original" in pictures else []
    blank = np.zeros_like(next(iter(pictures.values())))
    rows += [(f"dense\n{0:.0%}", [next(iter(dense.values()))] * len(arms))] if dense else []
    rows += [(f"{s:.1%}", [by_arm[arm].get(s, blank) for arm in arms]) for s in sparsities]
    won = max((s for s in sparsities if winning is not None and s <= winning + 1e-4), default=None)
    marked = None if won is None else len(rows) - len(sparsities) + sparsities.index(won)
    figure = Figure(figsize=(0.62 * len(blank) * len(arms) + 1, 0.66 * len(rows) + 0.4))
    axes = figure.subplots(len(rows), len(arms), squeeze=False, gridspec_kw={"hspace": 0.06, "wspace": 0.04})
    for i, (label, panels) in enumerate(rows):
        for j, images in enumerate(panels):
            strip = np.concatenate([np.pad(x, ((1, 1), (1, 1), (0, 0)), constant_values=255) for x in images], axis=1)
            gray = strip.shape[-1] == 1
            axes[i, j].imshow(strip[..., 0] if gray else strip, cmap="gray" if gray else None, vmin=0, vmax=255)
            axes[i, j].set_xticks([])
            axes[i, j].set_yticks([])
            axes[i, j].set_frame_on(i == marked and j == 0)
            for spine in axes[i, j].spines.values():
                spine.set(color=MARKED, linewidth=2.5)
            if i == 0:
                axes[i, j].set_title(_tickets(arms[j]), fontsize=10)
        axes[i, 0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
        if i == marked:
            axes[i, 0].yaxis.label.set(color=MARKED, weight="bold")
    return save(figure, path)
