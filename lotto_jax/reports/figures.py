"""Figures of a run, as PNG and SVG: metric against sparsity, training curves, image grids."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lotto_jax.reports.summary import Point, Winning

# The paper's colours: both components green, encoder or generator blue, decoder or discriminator red.
COLORS = {
    "both": "tab:green",
    "encoder": "tab:blue",
    "generator": "tab:blue",
    "decoder": "tab:red",
    "discriminator": "tab:red",
}
STYLES = {"winning": "-", "random": "--", "random_pruned": ":", "one_shot": "-."}
MARKERS = {"winning": "o", "random": "x", "random_pruned": "^", "one_shot": "s"}
CONTROLS = {"random_pruned": "tab:gray", "one_shot": "tab:orange"}


def _save(figure: Figure, path: Path) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    for file in files:
        figure.savefig(file, dpi=150, bbox_inches="tight")
    return files


def _position(sparsity: float) -> float:
    """Rounds that remove a fixed share lie at equal distances."""
    return -math.log(1 - sparsity)


def _sparsity_axis(axes: Axes, sparsities: list[float]) -> None:
    """Label measured sparsities, as many as fit."""
    chosen: list[float] = []
    span = _position(max(sparsities)) or 1.0
    for s in sorted(set(sparsities)):
        if not chosen or _position(s) - _position(chosen[-1]) > span / 14:
            chosen.append(s)
    axes.set_xticks([_position(s) for s in chosen], [f"{100 * s:.3g}" for s in chosen])
    axes.set_xlabel("sparsity of the network (%), spaced by pruning rounds")


def _label(name: str) -> str:
    return name.replace("_", " ")


def against_sparsity(points: list[Point], metric: str, wins: list[Winning], title: str, path: Path) -> list[Path]:
    """Metric against sparsity with error bars for every arm and component (the paper's Figures 3 to 6).

    Error bars are one standard deviation over seeds; the gray band is the dense network's.
    """
    figure = Figure(figsize=(7, 4.2))
    axes = figure.add_subplot()
    curves: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for p in points:
        curves[p.pruned, p.arm].append(p)
    several = len({pruned for pruned, arm in curves if arm == "winning"}) > 1
    for dense in curves.pop(("both", "dense"), []):
        axes.axhline(dense.mean, color="black", linewidth=1, label="dense")
        axes.axhspan(
            dense.mean - dense.std,
            dense.mean + dense.std,
            color="black",
            alpha=0.12,
            linewidth=0,
            label="dense, one std",
        )
    for (pruned, arm), line in curves.items():
        line = sorted(line, key=lambda p: p.sparsity)
        axes.errorbar(
            [_position(p.sparsity) for p in line],
            [p.mean for p in line],
            [p.std for p in line],
            color=CONTROLS.get(arm) or ("tab:red" if arm == "random" and not several else COLORS[pruned]),
            linestyle=STYLES.get(arm, "-"),
            marker=MARKERS.get(arm, "o"),
            markersize=4,
            linewidth=1.4,
            capsize=2,
            label=_label(arm) + (f", {pruned} pruned" if several else ""),
        )
    # Seeds of a very sparse random arm can lie far off; the axis follows the means.
    means = [p.mean for p in points if p.values] or [0.0]
    span = max(means) - min(means) or abs(means[0]) or 1.0  # all may be the same
    axes.set_ylim(min(means) - 0.08 * span, max(means) + 0.15 * span)
    for win in wins:
        if win.sparsity is not None and win.pruned == wins[0].pruned:
            axes.axvline(_position(win.sparsity), color=COLORS.get(win.pruned, "tab:purple"), alpha=0.3, linewidth=6)
            left = win.sparsity < 0.7  # the longer side has room for the text
            axes.annotate(
                f"winning ticket: {win.sparsity:.1%}",
                (_position(win.sparsity), 0.97),
                xycoords=("data", "axes fraction"),
                ha="left" if left else "right",
                va="top",
                xytext=(6 if left else -6, 0),
                textcoords="offset points",
            )
    rounds = [p.sparsity for p in points if p.arm == "winning"]
    _sparsity_axis(axes, rounds or [p.sparsity for p in points])
    axes.set_ylabel(_label(metric))
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _save(figure, path)


def training_curves(log: list[dict[str, Any]], name: str, path: Path) -> list[Path]:
    """Mean of `name` over seeds while training, winning against random tickets, at five sparsities."""
    groups: dict[tuple, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    first = next(p["pruned"] for p in log if p["arm"] == "winning")
    for p in log:
        if name in p and (p["arm"] == "dense" or (p["arm"] in ("winning", "random") and p["pruned"] == first)):
            groups[p["arm"], p["round"]][p["step"]].append(p[name])
    sparsity = {p["round"]: p["sparsity"] for p in log if p["arm"] == "winning" and p["pruned"] == first}
    rounds = sorted(sparsity)
    chosen = [rounds[i] for i in sorted(set(np.linspace(0, len(rounds) - 1, 5).round().astype(int)))]
    figure = Figure(figsize=(9, 3.6))
    axes = figure.subplots(1, 2, sharey=True)
    for panel, arm in zip(axes, ("winning", "random"), strict=True):
        for color, number in zip(["black", *_shades(len(chosen))], [0, *chosen], strict=True):
            curve = groups.get(("dense", 0) if number == 0 else (arm, number), {})
            steps = sorted(curve)
            label = "dense" if number == 0 else f"{sparsity[number]:.1%}"
            panel.plot(steps, [np.mean(curve[s]) for s in steps], color=color, linewidth=1.2, label=label)
        panel.set_title(f"{arm} tickets", fontsize=10)
        panel.set_xlabel("step")
        panel.set_yscale("log")
        panel.grid(alpha=0.25)
    axes[0].set_ylabel(f"training {_label(name)}")
    axes[1].legend(fontsize=8, frameon=False, title="sparsity", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _save(figure, path)


def _shades(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](0.85 * i / max(count - 1, 1)) for i in range(count)]  # the rest is too pale


def image_grid(pictures: dict[str, np.ndarray], path: Path) -> list[Path]:
    """Images of winning (left) and random tickets (right), sparser downwards (Figures A.6 to A.8).

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
    arms = [arm for arm in ("winning", "random") if arm in by_arm]
    sparsities = sorted({s for arm in arms for s in by_arm[arm]})
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
                axes[i, j].set_title(f"{arms[j]} tickets", fontsize=10)
        axes[i, 0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    return _save(figure, path)
