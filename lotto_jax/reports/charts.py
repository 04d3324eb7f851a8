"""Plots on the page that zoom and tell values under the pointer: what `templates/page.js` draws with uPlot.

uPlot is embedded whole (51 KB, MIT licence, in `uplot/`): Plotly would make every page 4 MB and Bokeh 1 MB. A page
shows the picture of a figure where JavaScript is off.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lotto_jax.reports import markup
from lotto_jax.reports.curves import Curves
from lotto_jax.reports.panels import Panel, words
from lotto_jax.reports.summary import Point, cell

Spec = dict[str, Any]


def html(specs: Sequence[Spec], caption: str, files: Sequence[Path] = ()) -> Markup:
    """Charts side by side under one caption; the PNG among the files is shown without JavaScript."""
    picture = next((file for file in files if file.suffix == ".png"), None)
    return markup.render(
        "charts.html",
        charts=[(spec["title"] or caption, _script(spec)) for spec in specs],
        caption=caption,
        picture=embedded(picture) if picture else "",
    )


def embedded(file: Path) -> str:
    """A picture as the address of an image."""
    kind = "image/png" if file.suffix == ".png" else "image/svg+xml"
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def _script(spec: Spec) -> Markup:
    """JSON that may stand in a script element."""
    text = json.dumps(_finite(spec), ensure_ascii=True, separators=(",", ":"))
    escaped = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(escaped)


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def against_sparsity(panel: Panel) -> Spec:
    """A metric against sparsity, as `figures.against_sparsity` draws it."""
    sparsities = sorted({round(p.sparsity, 4) for line in panel.lines for p in line.points})
    return {
        "title": panel.title,
        "x": {
            "label": "sparsity of the network",
            "ticks": [[panel.position(s), f"{100 * s:.3g} %"] for s in panel.ticks()],
        },
        "y": {"label": words(panel.metric), "range": list(panel.range())},
        "xs": [panel.position(s) for s in sparsities],
        "names": [f"{s:.2%}" for s in sparsities],
        "series": [_series(line.label, line.style, line.points, sparsities) for line in panel.lines],
        "dense": _dense(panel.dense),
        "marks": [
            {"x": panel.position(win.sparsity), "label": f"winning ticket: {win.sparsity:.1%}"}
            for win in panel.wins
            if win.sparsity is not None
        ],
    }


def _dense(dense: Point | None) -> Spec | None:
    return {"mean": dense.mean, "std": dense.std, "text": cell(dense)} if dense and dense.values else None


def _series(label: str, style: str, points: Sequence[Point], xs: Sequence[float]) -> Spec:
    here = {round(p.sparsity, 4): p for p in points}
    found = [here.get(x) for x in xs]
    return {
        "label": label,
        "style": style,
        "y": [p.mean if p else None for p in found],
        "std": [p.std if p and p.values else None for p in found],
        "text": [cell(p) if p else "" for p in found],
    }


def training(group: Curves, name: str) -> Spec:
    """Training curves of one arm."""
    steps = sorted({step for _, own, _ in group.lines for step in own})
    series = []
    for number, (label, own, means) in enumerate(group.lines):
        at = dict(zip(own, means, strict=True))
        y = [at.get(step) for step in steps]
        text = ["" if value is None else f"{value:.4g}" for value in y]
        series.append({"label": label, "style": f"shade{number}", "y": y, "std": None, "text": text})
    title = "the dense network" if group.arm == "dense" else f"{words(group.arm)} tickets"
    positive = all(mean > 0 for _, _, means in group.lines for mean in means)
    return {
        "title": title,
        "x": {"label": "step", "ticks": None},
        "y": {"label": f"training {words(name)}", "range": None, "log": positive},
        "xs": steps,
        "names": [f"{step:,}" for step in steps],
        "series": series,
        "dense": None,
        "marks": [],
        "lines": True,
    }


def scatter(
    lines: Mapping[str, Sequence[tuple[float, Point]]], x: str, y: str, title: str = "", percent: bool = False
) -> Spec:
    """A metric against another number, a line for each method (Figure 7).

    Args:
      lines: by label: number and measurements.
      x: label of the numbers.
      y: label of the metric.
      title: of the chart.
      percent: whether the numbers are shares.
    """
    xs = sorted({number for line in lines.values() for number, _ in line})
    series = []
    for order, (label, line) in enumerate(lines.items()):
        at = dict(line)
        found = [at.get(number) for number in xs]
        series.append(
            {
                "label": label,
                "style": f"method{order}",
                "y": [p.mean if p else None for p in found],
                "std": [p.std if p and p.values else None for p in found],
                "text": [cell(p) if p else "" for p in found],
            }
        )
    return {
        "title": title,
        "x": {"label": x, "ticks": None, "percent": percent},
        "y": {"label": y, "range": None},
        "xs": xs,
        "names": [f"{number:.1%}" if percent else f"{number:.4g}" for number in xs],
        "series": series,
        "dense": None,
        "marks": [],
    }
