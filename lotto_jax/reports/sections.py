"""The pieces of a report: functions from a run directory to sections, of which every experiment names its own."""

import base64
import html
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lotto_jax.objectives.state import Better
from lotto_jax.reports import figures as draw
from lotto_jax.reports import summary
from lotto_jax.reports import table2 as tables
from lotto_jax.runs import curves as logs
from lotto_jax.runs import pictures as stored
from lotto_jax.runs import provenance
from lotto_jax.runs.files import write_atomically
from lotto_jax.runs.results import Result

TABLE2 = """\
Mean (± standard deviation) over seeds; in brackets the share of the unpruned network's. Compression is the share of
channels that early-bird tickets lose, and of weights that the others lose, whose masks save neither storage nor
operations. Mixed precision is what config.early_bird.mixed_precision says; float8 is emulated. FLOPs and seconds are of
all the training that a ticket needs, its search included (the pruning itself in FLOPs only); seconds are counted on the
devices of one ticket, without compilation; tickets that trained together have their common mean, without a spread."""


class Source(NamedTuple):
    """What a report is made from.

    Attributes:
      path: the run directory.
      config: its configuration as JSON has it.
      results: the rows of results.csv.
      title: of the report.
    """

    path: Path
    config: dict[str, Any]
    results: list[Result]
    title: str

    def figure(self, name: str) -> Path:
        """Where a figure goes, without suffix."""
        return self.path / "figures" / name

    def measured(self, metric: str) -> dict[str, Any]:
        """What metrics.json says of a metric."""
        return provenance.read(self.path).get(metric, {})

    def better(self, metric: str) -> Better:
        """Which values of a metric are better; neither where the run does not say."""
        return self.measured(metric).get("better", "neither")


class Section(NamedTuple):
    """A piece of a report: lines for the terminal, HTML, and the files that it wrote."""

    text: list[str]
    body: list[str]
    files: Sequence[Path] = ()


def measured_with(entry: dict[str, Any]) -> str:
    """An entry of metrics.json in words; empty where it says no more than the direction."""
    words = {field: value for field, value in entry.items() if field not in ("better", "tolerance")}
    return ", ".join(f"{field.replace('_', ' ')} {value}" for field, value in words.items())


def metrics(source: Source) -> list[Section]:
    """For every metric its winning sparsity in words, metric against sparsity, and a table."""
    return [_metric(source, metric) for metric in summary.metrics(source.results)]


def _metric(source: Source, metric: str) -> Section:
    points, entry = summary.points(source.results, metric), source.measured(metric)
    choices = list(dict.fromkeys(p.pruned for p in points if draw.in_rounds(p.arm)))
    tolerance = source.config["report"]["tolerance"] or entry.get("tolerance", 0.0)
    found = [summary.winning(points, source.better(metric), pruned, tolerance) for pruned in choices]
    wins = [win for win in found if win is not None]
    sentences = [summary.sentence(win, metric) for win in wins]
    strict = [summary.strictly_winning(points, source.better(metric), pruned, tolerance) for pruned in choices]
    sentences += [summary.strict_sentence(win, metric) for win in strict if win is not None]
    words = [f"Measured with: {measured_with(entry)}."] if measured_with(entry) else []
    text = ["", f"{metric} (mean ± standard deviation over seeds)"]
    body = [f"<h2>{html.escape(metric)}</h2>", *(f"<p>{html.escape(s)}</p>" for s in [*sentences, *words])]
    files: list[Path] = []
    if choices and not any(p.values for p in points):
        lost = f"All tickets collapsed: {metric} has no values to draw."
        text, body = [*text, lost], [*body, f"<p>{html.escape(lost)}</p>"]
    elif choices:
        files = draw.against_sparsity(points, metric, wins, source.title, source.figure(f"{metric}_against_sparsity"))
        body += [embedded(files)]
    for choice in choices or list(dict.fromkeys(p.pruned for p in points if p.arm != "dense")) or ["both"]:
        table = summary.table([p for p in points if p.pruned == choice or p.arm == "dense"])
        text += [f"\n{choice} pruned:" if len(choices) > 1 else "", *aligned(*table)]
        body += [f"<h3>{choice} pruned</h3>" if len(choices) > 1 else "", html_table(*table)]
    return Section([*text, "", *sentences], body, files)


def curves(source: Source) -> list[Section]:
    """Training curves of two arms, winning and random tickets where there are any; a section for each metric."""
    log = logs.read(source.path)
    if not log:
        return []
    known = {"position", "pruned", "round", "arm", "seed", "sparsity", "step"}
    made = []
    for name in [key for key in log[-1] if key not in known]:
        files = draw.training_curves(log, name, source.figure(f"{name}_curves"))
        made.append(Section([], [f"<h2>Training: {html.escape(name)}</h2>", embedded(files)], files))
    return made


def mask_distances(source: Source) -> list[Section]:
    """Distances of channel masks during the search."""
    history = stored.read_channel_masks(source.path)
    if history is None:
        return []
    files = draw.mask_distances(history, source.config["early_bird"], source.figure("mask_distances"))
    return [Section([], ["<h2>Channel masks during the search</h2>", embedded(files)], files)]


def pictures(source: Source) -> list[Section]:
    """Grids of reconstructions and samples."""
    images, made = stored.read_images(source.path) or {}, []
    for kind in dict.fromkeys(name.split("/")[0] for name in images if "/" in name):
        chosen = {name.partition("/")[2]: p for name, p in images.items() if name.startswith(f"{kind}/")}
        if kind == "reconstructions":
            chosen["original"] = images["original"]
        files = draw.image_grid(chosen, source.figure(kind))
        made.append(Section([], [f"<h2>{kind.capitalize()}</h2>", embedded(files)], files))
    return made


def table2(source: Source) -> list[Section]:
    """Table 2 as text, Markdown and CSV, and Figure 7."""
    header, rows = tables.table(source.results)
    markdown, comma = source.path / "table2.md", source.path / "table2.csv"
    write_atomically(markdown, tables.as_markdown(header, rows))
    write_atomically(comma, tables.as_csv(source.results))
    directions = {metric: source.better(metric) for metric in summary.metrics(source.results)}
    shown = tables.judged_by(source.results, directions)
    files = draw.costs(tables.rows(source.results), shown, source.figure("costs"))
    text = [*aligned(header, rows), "", *textwrap.wrap(TABLE2, 120)]
    body = [html_table(header, rows), f"<p>{TABLE2}</p>", embedded(files)]
    for metric in summary.metrics(source.results):
        if words := measured_with(source.measured(metric)):
            body.append(f"<p>{html.escape(f'{metric}: {words}.')}</p>")
    return [Section(text, body, [markdown, comma, *files])]


def aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    """A table for the terminal, columns to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]


def html_table(header: list[str], rows: list[list[str]]) -> str:
    """A table for the page."""
    cells = lambda tag, row: "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)  # noqa: E731
    lines = [f"<tr>{cells('td', row)}</tr>" for row in rows]
    return f"<table><tr>{cells('th', header)}</tr>{''.join(lines)}</table>"


def embedded(files: list[Path]) -> str:
    """The PNG among the files of a figure, as part of the page."""
    path = next(file for file in files if file.suffix == ".png")
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}">'
