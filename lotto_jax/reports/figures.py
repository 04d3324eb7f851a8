"""Figures of a run, as PNG and SVG: metric against sparsity or costs, training curves, image grids."""

import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lotto_jax.reports.summary import Point, Winning
from lotto_jax.reports.table2 import Row

COLORS = {"winning": "tab:green", "random": "tab:red", "random_pruned": "tab:gray", "one_shot": "tab:orange"}
COLORS |= {"snip": "tab:blue", "grasp": "tab:brown", "transfer": "tab:cyan"}
MARKERS = {"winning": "o", "random": "x", "random_pruned": "^", "one_shot": "s", "snip": "v", "grasp": "d"}
MARKERS |= {"transfer": "P"}


def in_rounds(arm: str) -> bool:
    """Whether the tickets of an arm have a sparsity of weights, and so a place on the axis of sparsities."""
    return arm != "dense" and not arm.startswith("early_bird")


def _compared(arms: Iterable[str]) -> list[str]:
    """The two arms that curves and grids show: winning and random tickets, or the first there are; else the dense."""
    there = list(dict.fromkeys(arm for arm in arms if arm != "dense"))
    usual: list[str] = [arm for arm in ("winning", "random") if arm in there]
    return (usual or there or ["dense"])[:2]


def _save(figure: Figure, path: Path) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    for file in files:
        figure.savefig(file, dpi=150, bbox_inches="tight")
    return files


def _limit(line: list[Point]) -> float:
    """Share of the network that the pruned components are: what the sparsity of a line of rounds tends to."""
    by_round = {p.round: p.sparsity for p in line}
    if 1 not in by_round or 2 not in by_round:
        return 1.0
    kept = by_round[2] / by_round[1] - 1  # of a round's weights; sparsities are a geometric series
    return min(by_round[1] / (1 - kept), 1.0)


def _position(sparsity: float, limit: float) -> float:
    """Rounds that remove a fixed share lie at equal distances."""
    return -math.log(max(1 - sparsity / limit, 1e-6))


def _sparsity_axis(axes: Axes, sparsities: list[float], limit: float) -> None:
    """Label measured sparsities, as many as fit."""
    chosen: list[float] = []
    span = _position(max(sparsities), limit) or 1.0
    for s in sorted(set(sparsities)):
        if not chosen or _position(s, limit) - _position(chosen[-1], limit) > span / 7:
            chosen.append(s)
    axes.set_xticks([_position(s, limit) for s in chosen], [f"{100 * s:.3g}" for s in chosen])
    axes.set_xlabel("sparsity of the network (%)")


def _label(name: str) -> str:
    return name.replace("_", " ")


def against_sparsity(points: list[Point], metric: str, wins: list[Winning], title: str, path: Path) -> list[Path]:
    """Metric against sparsity for every arm, a panel for each choice of components (the paper's Figures 3 to 6).

    Error bars are one standard deviation over seeds; the gray band is the dense network's. Rounds are equally spaced.
    """
    choices = list(dict.fromkeys(p.pruned for p in points if in_rounds(p.arm)))
    figure = Figure(figsize=(2.2 + 4.8 * len(choices), 4.2))
    panels = figure.subplots(1, len(choices), sharey=True, squeeze=False, gridspec_kw={"wspace": 0.05})[0]
    for axes, pruned in zip(panels, choices, strict=True):
        _panel(axes, points, pruned, [win for win in wins if win.pruned == pruned])
        if len(choices) > 1:
            axes.set_title(f"{pruned} pruned", fontsize=10)
    panels[0].set_ylabel(_label(metric))
    figure.suptitle(title, fontsize=10)
    _legend(panels[0], panels[-1])  # one-shot tickets are of the first choice only
    return _save(figure, path)


def of_runs(runs: dict[str, tuple[str, list[Point], Winning | None]], path: Path) -> list[Path]:
    """A panel as `against_sparsity` draws it for each of several runs: metric, its points and its win, by title."""
    columns = min(4, len(runs))
    figure = Figure(figsize=(1.5 + 3.6 * columns, 3.3 * math.ceil(len(runs) / columns)))
    grid = figure.subplots(
        math.ceil(len(runs) / columns), columns, squeeze=False, gridspec_kw={"wspace": 0.32, "hspace": 0.5}
    )
    for axes, (title, (metric, points, win)) in zip(grid.flat, runs.items(), strict=False):
        _panel(axes, points, next(p.pruned for p in points if p.arm == "winning"), [] if win is None else [win])
        axes.set_title(title, fontsize=10)
        axes.set_ylabel(_label(metric), fontsize=9)
    for axes in grid.flat[len(runs) :]:
        axes.set_axis_off()
    _legend(grid[0, 0], grid[0, -1])
    return _save(figure, path)


def _panel(axes: Axes, points: list[Point], pruned: str, wins: list[Winning]) -> None:
    """One choice of components: the dense network, a line for every arm, and the winning sparsity."""
    here = [p for p in points if p.pruned == pruned and p.arm != "dense"]
    measured = [p for p in here if p.arm == _compared(p.arm for p in here)[0]]
    limit = _limit(measured) if measured[0].arm != "one_shot" else 1.0
    for dense in (p for p in points if p.arm == "dense"):
        band = dense.mean - dense.std, dense.mean + dense.std
        axes.axhline(dense.mean, color="black", linewidth=1, label="dense")
        axes.axhspan(*band, color="black", alpha=0.12, linewidth=0, label="dense, one std")
    for arm in dict.fromkeys(p.arm for p in here):
        line = sorted((p for p in here if p.arm == arm), key=lambda p: p.sparsity)
        axes.errorbar(
            [_position(p.sparsity, limit) for p in line],
            [p.mean for p in line],
            [p.std for p in line],
            color=COLORS.get(arm, "tab:purple"),
            linestyle="-" if arm == "winning" else "--",
            marker=MARKERS.get(arm, "o"),
            markersize=4,
            linewidth=1.4,
            capsize=2,
            label=_label(arm),
        )
    ends = [_position(s(p.sparsity for p in here), limit) for s in (min, max)]
    for win in wins:
        if win.sparsity is not None:
            _mark(axes, win.sparsity, limit, 2 * _position(win.sparsity, limit) < sum(ends))
    _sparsity_axis(axes, [p.sparsity for p in measured], limit)
    axes.grid(alpha=0.25)
    # Seeds of a very sparse random arm and one-shot tickets can lie far off; the axis follows the means of the others.
    means = [p.mean for p in points if p.values and (p.arm != "one_shot" or p in measured)] or [0.0]
    span = max(means) - min(means) or abs(means[0]) or 1.0  # all may be the same
    axes.set_ylim(min(means) - 0.08 * span, max(means) + 0.15 * span)


def _legend(source: Axes, target: Axes) -> None:
    """The lines of one panel, explained to the right of another."""
    handles, labels = source.get_legend_handles_labels()
    target.legend(handles, labels, fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _mark(axes: Axes, sparsity: float, limit: float, left: bool) -> None:
    """A band and a word at the winning sparsity; `left` is where it lies, so that the text goes the other way."""
    axes.axvline(_position(sparsity, limit), color=COLORS["winning"], alpha=0.3, linewidth=6)
    axes.annotate(
        f"winning ticket: {sparsity:.1%}",
        (_position(sparsity, limit), 0.97),
        xycoords=("data", "axes fraction"),
        ha="left" if left else "right",
        va="top",
        xytext=(6 if left else -6, 0),
        textcoords="offset points",
        fontsize=9,
    )


def training_curves(log: list[dict[str, Any]], name: str, path: Path) -> list[Path]:
    """Mean of `name` over seeds while training: the dense network and two arms, a panel each, at five sparsities."""
    groups: dict[tuple, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    arms = _compared(p["arm"] for p in log)
    first = next(p["pruned"] for p in log if p["arm"] == arms[0])
    for p in log:
        if name in p and (p["arm"] == "dense" or (p["arm"] in arms and p["pruned"] == first)):
            groups[p["arm"], round(p["sparsity"], 4)][p["step"]].append(p[name])
    there = sorted({s for arm, s in groups if arm in arms and arm != "dense"})
    chosen = [there[i] for i in sorted(set(np.linspace(0, len(there) - 1, 5).round().astype(int)))] if there else []
    figure = Figure(figsize=(4.5 * len(arms), 3.6))
    axes = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for panel, arm in zip(axes, arms, strict=True):
        curves = [("black", "dense", groups.get(("dense", 0), {}))]
        curves += [(c, f"{s:.1%}", groups.get((arm, s), {})) for c, s in zip(_shades(len(chosen)), chosen, strict=True)]
        for color, label, curve in curves:
            steps = sorted(curve)
            panel.plot(steps, [np.mean(curve[s]) for s in steps], color=color, linewidth=1.2, label=label)
        panel.set_title(_tickets(arm), fontsize=10)
        panel.set_xlabel("step")
        panel.grid(alpha=0.25)
    shown = [value for curve in groups.values() for values in curve.values() for value in values]
    if min(shown) > 0:  # Wasserstein and hinge losses may be negative
        axes[0].set_yscale("log")
    axes[0].set_ylabel(f"training {_label(name)}")
    if chosen:
        axes[-1].legend(fontsize=8, frameon=False, title="sparsity", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _save(figure, path)


def _tickets(arm: str) -> str:
    return "the dense network" if arm == "dense" else f"{_label(arm)} tickets"


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
    return _save(figure, path)


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
    return _save(figure, path)


def image_grid(pictures: dict[str, np.ndarray], path: Path) -> list[Path]:
    """Images of winning (left) and random tickets (right), or of other arms, sparser downwards (Figures A.6 to A.8).

    Args:
      pictures: `<arm>/<sparsity>`, each uint8 [n, height, width, channels], and `original`, for the first row, if they
        are reconstructions.
      path: where to write, without suffix.
    """
    by_arm: dict[str, dict[float, np.ndarray]] = defaultdict(dict)
    for name, images in pictures.items():
        if "/" in name:
            arm, sparsity = name.split("/")
            by_arm[arm][float(sparsity)] = images
    arms = _compared(by_arm)
    sparsities = sorted({s for arm in arms for s in by_arm[arm] if arm != "dense"})
    dense = by_arm["dense"]
    rows = [("original", [pictures["original"]] * len(arms))] if "original" in pictures else []
    blank = np.zeros_like(next(iter(pictures.values())))
    rows += [(f"dense\n{0:.0%}", [next(iter(dense.values()))] * len(arms))] if dense else []
    rows += [(f"{s:.1%}", [by_arm[arm].get(s, blank) for arm in arms]) for s in sparsities]
    figure = Figure(figsize=(0.62 * len(blank) * len(arms) + 1, 0.66 * len(rows) + 0.4))
    axes = figure.subplots(len(rows), len(arms), squeeze=False, gridspec_kw={"hspace": 0.06, "wspace": 0.04})
    for i, (label, panels) in enumerate(rows):
        for j, images in enumerate(panels):
            strip = np.concatenate([np.pad(x, ((1, 1), (1, 1), (0, 0)), constant_values=255) for x in images], axis=1)
            gray = strip.shape[-1] == 1
            axes[i, j].imshow(strip[..., 0] if gray else strip, cmap="gray" if gray else None, vmin=0, vmax=255)
            axes[i, j].set_xticks([])
            axes[i, j].set_yticks([])
            axes[i, j].set_frame_on(False)
            if i == 0:
                axes[i, j].set_title(_tickets(arms[j]), fontsize=10)
        axes[i, 0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    return _save(figure, path)
