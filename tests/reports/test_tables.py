"""Tables in every form hold what they were given, whatever characters that has."""

import csv
import io
import re

from lotto_jax.reports import tables
from lotto_jax.reports.tables import Table

TABLE = Table(
    ["arm, kept", "loss"],
    [["one_shot & 50%", "1.0 ± 0.5"], ['<script>alert("|")</script>', "2"]],
    name="mine",
    caption="losses < 3",
    marked={1: "winning"},
    links={(0, 1): "#run-a"},
)


def test_csv_reads_back():
    assert list(csv.reader(io.StringIO(tables.as_csv(TABLE)))) == [TABLE.header, *TABLE.rows]


def test_markdown_has_a_row_each_and_bars_in_cells_are_escaped():
    lines = tables.as_markdown(TABLE).splitlines()
    assert lines[1] == "| --- | --- |" and len(lines) == 4
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)


def test_latex_escapes_what_is_special():
    text = tables.as_latex(TABLE)
    assert r"one\_shot \& 50\% & 1.0 $\pm$ 0.5 \\" in text
    assert r"\begin{tabular}{lr}" in text and r"\caption{losses < 3}" in text


def test_html_escapes_marks_and_links():
    page = tables.as_html(TABLE)
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert page.count('class="marked"') == 1 and '<a href="#run-a">1.0 ± 0.5</a>' in page
    assert 'download="mine.csv"' in page and 'download="mine.tex"' in page
    assert "losses &lt; 3" in page


def test_text_is_aligned_to_the_right():
    lines = tables.as_text(Table(["a", "long"], [["wide", "1"]]))
    assert lines == ["   a  long", "wide     1"]
