"""The pieces of a report: functions from a run directory to sections, of which every experiment names its own."""

import functools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lotto_jax.reports import answer, charts, markup, panels, summary, tables
from lotto_jax.reports import curves as training
from lotto_jax.reports import figures as draw
from lotto_jax.reports import table2 as methods
from lotto_jax.reports.source import Section, Source
from lotto_jax.reports.summary import Point, Winning
from lotto_jax.reports.tables import Table
from lotto_jax.runs import curves as logs
from lotto_jax.runs import pictures as stored
from lotto_jax.runs.files import write_atomically

__all__ = ["Section", "Source", "aligned", "embedded", "html_table"]  # what a section of one's own is made with

TABLE2 = """\
Mean (± standard deviation) over seeds; in brackets the share of the unpruned network's. Compression is the share of
channels that early-bird tickets lose, and of weights that the others lose, whose masks save neither storage nor
operations. Mixed precision is what config.early_bird.mixed_precision says; float8 is emulated. FLOPs and seconds are of
all the training that a ticket needs, its search included (the pruning itself in FLOPs only); seconds are counted on the
devices of one ticket, without compilation; tickets that trained together have their common mean, without a spread."""


def measured_with(entry: dict[str, Any]) -> str:
    """An entry of metrics.json in words; empty where it says no more than the direction."""
    known = {field: value for field, value in entry.items() if field not in ("better", "tolerance")}
    return ", ".join(f"{field.replace('_', ' ')} {value}" for field, value in known.items())


def metrics(source: Source) -> list[Section]:
    """For every metric its winning sparsity in words, metric against sparsity, and a table; the one that decides first.

    Metrics without a direction come last.
    """
    decides = answer.judged_by(source)
    rank = lambda name: (name != decides, source.better(name) == "neither")  # noqa: E731
    return [_metric(source, name) for name in sorted(summary.metrics(source.results), key=rank)]


def _metric(source: Source, metric: str) -> Section:
    points, entry, better = source.points(metric), source.measured(metric), source.better(metric)
    choices = panels.choices(points)
    wins = [win for win in (source.winning(metric, pruned) for pruned in choices) if win is not None]
    strict = [win for win in (source.strictly_winning(metric, pruned) for pruned in choices) if win is not None]
    sentences = [summary.sentence(win, metric) for win in wins]
    sentences += [summary.strict_sentence(win, metric) for win in strict]
    direction = f"{answer.BETTER[better].capitalize()}."
    said = [f"Measured with: {measured_with(entry)}."] if measured_with(entry) else []
    text = ["", f"{metric} (mean ± standard deviation over seeds)"]
    body = [paragraph(s) for s in [direction, *sentences, *said]]
    files: list[Path] = []
    if choices and not any(p.values for p in points):
        lost = f"All tickets collapsed: {metric} has no values to draw."
        text, body = [*text, lost], [*body, paragraph(lost)]
    elif choices:
        shown = panels.of_metric(points, metric, wins)
        name = f"{metric}_against_sparsity"
        files = source.draw(name, functools.partial(draw.against_sparsity, shown, source.title))
        caption = f"{panels.words(metric)} against sparsity; bars, and the band of the dense network: one standard "
        caption += "deviation over seeds"
        body.append(charts.html([charts.against_sparsity(panel) for panel in shown], caption, files))
    for choice in choices or list(dict.fromkeys(p.pruned for p in points if p.arm != "dense")) or ["both"]:
        here = [p for p in points if p.pruned == choice or p.arm == "dense"]
        table = _of_arms(metric, choice, here, wins, strict)
        text += [f"\n{choice} pruned:" if len(choices) > 1 else "", *tables.as_text(table._replace(marked={}))]
        files = [*files, *tables.write(table, source.tables)]
        body.append(tables.as_html(table))
    return Section([*text, "", *sentences], body, files, panels.words(metric))


def _of_arms(metric: str, pruned: str, points: list[Point], wins: list[Winning], strict: list[Winning]) -> Table:
    """A metric of all arms, with the rows of the winning sparsities marked."""
    header, rows = summary.table(points)
    sparsities = sorted({round(p.sparsity, 4) for p in points})
    marked = {}
    for found, word in ((strict, "winning, strictly"), (wins, "winning")):
        for win in found:
            if win.pruned == pruned and win.sparsity is not None:
                row = sparsities.index(round(win.sparsity, 4))
                marked[row] = "winning, also strictly" if row in marked else word
    caption = f"{panels.words(metric)}, {pruned} pruned: mean ± standard deviation over seeds"
    return Table(header, rows, f"{metric}_{pruned}", caption, marked)


def curves(source: Source) -> list[Section]:
    """Training curves of two arms, winning and random tickets where there are any; a section for each metric."""
    log, made = logs.read(source.path), []
    for name in training.names(log):
        groups = training.by_arm(log, name)
        files = source.draw(f"{name}_curves", functools.partial(draw.training_curves, groups, name))
        caption = f"training {panels.words(name)}, mean over seeds, by sparsity"
        body = [charts.html([charts.training(group, name) for group in groups], caption, files)]
        if source.measured(name).get("better", "lower") == "lower" and (slope := training.end_slope(log, name)):
            body.insert(0, paragraph(at_the_end(slope)))
        made.append(Section([], body, files, f"{panels.words(name)} while training"))
    return made


def at_the_end(slope: training.Slope) -> str:
    """The slope of the dense network's curve in words."""
    said = f"Over the last {training.END:.0%} of training the dense network's loss changes by {slope.mean:+.1%}"
    return said + (": it still falls, so longer training would change the results." if slope.still_falls else ".")


def mask_distances(source: Source) -> list[Section]:
    """Distances of channel masks during the search."""
    history = stored.read_channel_masks(source.path)
    if history is None:
        return []
    early_bird = source.config["early_bird"]
    files = source.draw("mask_distances", functools.partial(draw.mask_distances, history, early_bird), always=True)
    return [Section([], [embedded(files)], files, "Channel masks during the search")]


def pictures(source: Source) -> list[Section]:
    """Grids of reconstructions and samples, with the row of the winning sparsity marked."""
    found, made = grids(source), []
    for kind, chosen in found.items():
        win = answer.of(source).win
        at = None if win is None else win.sparsity
        files = source.draw(kind, functools.partial(draw.image_grid, chosen, winning=at), always=True)
        caption = f"{kind} by sparsity"
        caption += ", red: the sparsest row up to the winning sparsity" if at is not None else ""
        made.append(Section([], [embedded(files, caption)], files, kind.capitalize()))
    return made


def grids(source: Source) -> dict[str, dict[str, Any]]:
    """The pictures of a run by kind: `<arm>/<sparsity>`, and `original` where they are reconstructions."""
    images, made = stored.read_images(source.path) or {}, {}
    for kind in dict.fromkeys(name.split("/")[0] for name in images if "/" in name):
        made[kind] = {name.partition("/")[2]: p for name, p in images.items() if name.startswith(f"{kind}/")}
        if kind == "reconstructions":
            made[kind]["original"] = images["original"]
    return made


def table2(source: Source) -> list[Section]:
    """Table 2 as text, Markdown, CSV and LaTeX, and Figure 7."""
    table = Table(*methods.table(source.results), "table2", "Ways to a smaller network (the paper's Table 2)")
    root = source.out or source.path
    markdown, comma = root / "table2.md", root / "table2.csv"
    root.mkdir(parents=True, exist_ok=True)
    write_atomically(markdown, tables.as_markdown(table))
    write_atomically(comma, methods.as_csv(source.results))
    files = [markdown, comma, *tables.write(table._replace(name="table2_shown"), source.tables)]
    shown = methods.judged_by(source.results, {m: source.better(m) for m in summary.metrics(source.results)})
    rows = methods.rows(source.results)
    drawn = source.draw("costs", functools.partial(draw.costs, rows, shown))
    text = [*tables.as_text(table), "", *textwrap.wrap(TABLE2, 120)]
    body = [tables.as_html(table), paragraph(TABLE2), charts.html(costs(rows, shown), "What tickets cost", drawn)]
    for metric in summary.metrics(source.results):
        if said := measured_with(source.measured(metric)):
            body.append(paragraph(f"{metric}: {said}."))
    return [Section(text, body, [*files, *drawn], "Ways to a smaller network")]


def costs(rows: Sequence[methods.Row], metric: str) -> list[charts.Spec]:
    """The charts of Figure 7."""
    named = {"flops": "FLOPs of training", "training_seconds": "seconds of training"}
    made = []
    for x, y in (("flops", metric), ("compression", "flops"), ("compression", "training_seconds")):
        lines: dict[str, list[tuple[float, Point]]] = {}
        for row in rows:
            if row.points.get(y) and (x == "compression" or row.points.get(x)):
                lines.setdefault(row.method, []).append(
                    (row.compression if x == "compression" else row.mean(x), row.points[y])
                )
        label = named.get(y, panels.words(y))
        made.append(charts.scatter(lines, named.get(x, x), label, label, percent=x == "compression"))
    return made


def paragraph(text: str) -> Markup:
    """A paragraph of the page."""
    return Markup("<p>{}</p>").format(text)


def aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    """A table for the terminal, columns to the right."""
    return tables.as_text(Table(header, rows))


def html_table(header: list[str], rows: list[list[str]], caption: str = "") -> Markup:
    """A table for the page."""
    return tables.as_html(Table(header, rows, caption=caption))


def embedded(files: Sequence[Path], caption: str = "") -> Markup:
    """The PNG among the files of a figure, as part of the page."""
    path = next(file for file in files if file.suffix == ".png")
    shown = caption or panels.words(path.stem)
    return markup.render("picture.html", caption=shown, picture=charts.embedded(path))
