"""A table as HTML, CSV, Markdown, LaTeX, and text for the terminal."""

import csv
import io
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from lotto_jax.reports import markup
from lotto_jax.runs.files import write_atomically

LATEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"±": r"$\pm$", "\\": r"\textbackslash{}", "~": r"\~{}"})
TYPES = {"csv": "text/csv", "md": "text/markdown", "tex": "text/x-tex"}


class Table(NamedTuple):
    """Cells as text, and what is known of them.

    Attributes:
      header: of the columns.
      rows: each as long as the header.
      name: of its files, without suffix; empty for a table that has none.
      caption: what it shows.
      marked: rows that stand out, and why in a few words.
      links: where a cell leads, by row and column.
      text: columns that hold words, which begin on the left.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    name: str = ""
    caption: str = ""
    marked: Mapping[int, str] = {}
    links: Mapping[tuple[int, int], str] = {}
    text: Sequence[int] = ()


def as_text(table: Table) -> list[str]:
    """Lines for the terminal, columns to the right."""
    lines = [table.header, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.header))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]


def as_csv(table: Table) -> str:
    """Comma-separated values."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.header, *table.rows])
    return text.getvalue()


def as_markdown(table: Table) -> str:
    """A Markdown table."""
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def as_latex(table: Table) -> str:
    """A LaTeX table, which needs the package booktabs."""
    line = lambda cells: " & ".join(cell.translate(LATEX) for cell in cells) + r" \\"  # noqa: E731
    columns = "".join("l" if i in table.text or i == 0 else "r" for i in range(len(table.header)))
    body = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        line(table.header),
        r"\midrule",
        *map(line, table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    caption = [rf"\caption{{{table.caption.translate(LATEX)}}}"] if table.caption else []
    return "\n".join([r"\begin{table}", r"\centering", *caption, *body, r"\end{table}", ""])


def formats(table: Table) -> dict[str, str]:
    """What is written of a table, by suffix."""
    return {"csv": as_csv(table), "md": as_markdown(table), "tex": as_latex(table)}


def write(table: Table, directory: Path) -> list[Path]:
    """Write a table as CSV, Markdown and LaTeX."""
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for suffix, text in formats(table).items():
        files.append(directory / f"{table.name}.{suffix}")
        write_atomically(files[-1], text)
    return files


def as_html(table: Table) -> Markup:
    """A table for the page, which scrolls by itself where it is too wide, with its other forms to download."""
    found = formats(table) if table.name else {}
    downloads = {s: f"data:{TYPES[s]};charset=utf-8,{urllib.parse.quote(text)}" for s, text in found.items()}
    return markup.render("table.html", table=table, downloads=downloads)
