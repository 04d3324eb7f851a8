"""Several runs in the paper's arrangement: Table 1, Table 2, Figures 1 to 8 and A.1 to A.8, and what is missing."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from lotto_jax.reports import charts, convergence, figures, markup, page, panels, paper, sections, tables
from lotto_jax.reports import table1 as networks
from lotto_jax.reports import table2 as methods
from lotto_jax.reports.answer import Answer
from lotto_jax.reports.page import Reported
from lotto_jax.reports.panels import Line, Panel
from lotto_jax.reports.paper import Figure, Item
from lotto_jax.reports.source import Section
from lotto_jax.reports.summary import cell
from lotto_jax.reports.tables import Table
from lotto_jax.runs.files import write_atomically

TITLE = "Winning Lottery Tickets in Deep Generative Models, measured"
NOT_GIVEN = "no run of it was given"
COMMAND = "python scripts/reproduce.py --scale=cpu --only="  # what fills a gap


class Drawn(NamedTuple):
    """A panel of a figure of the paper: what shows it, or why nothing does.

    Attributes:
      item: of the paper.
      run: that it shows.
      panels: against sparsity.
      body: other pieces of the page.
      files: that were written.
      missing: why it shows nothing.
    """

    item: Item
    run: Reported | None = None
    panels: Sequence[Panel] = ()
    body: Sequence[Markup] = ()
    files: Sequence[Path] = ()
    missing: str = ""


def write(runs: Sequence[Reported], out: Path, pdf: bool = False) -> str:
    """Write report.html, figures/ and tables/ of several runs, and paper/ with `pdf`; return the summary as text."""
    by_name: dict[str, list[Reported]] = {}
    for run in runs:
        by_name.setdefault(paper.identify(run.source.config) or "", []).append(run)
    first, files = _table1(runs, out)
    head = _answer(runs)
    lead = [first, _table2(by_name.get(paper.TABLE2_CONFIG, []), out)]
    for figure in paper.FIGURES:
        lead.append(_figure(figure, by_name, out, pdf))
    page_file = out / page.REPORT
    write_atomically(page_file, page.html(TITLE, head, lead, runs))
    text = [TITLE, "", f"{head.headline}.", *head.sentences, *(line for section in lead for line in section.text)]
    written = [page_file, *files, *(out / name for name in ("figures", "tables", *(["paper"] if pdf else [])))]
    return "\n".join([*text, "", "Written:", *(f"  {file}" for file in written)])


def _answer(runs: Sequence[Reported]) -> Answer:
    """How many networks have winning tickets, and what the paper says of them."""
    rows = networks.rows([run.source for run in runs])
    verdicts = [networks.cells(row, source)[3] for row, source in rows if row]
    known = {row.config for row, source in rows if row and source}
    won = {
        r.config for r, s in rows if r and s and (m := networks.by_answer(s)) and m.win and m.win.sparsity is not None
    }
    head = f"Winning tickets in {len(won)} of {len(known)} networks that were measured, of {len(paper.TABLE1)} in the "
    head += "paper"
    counts = Counter(verdicts)
    said = "; ".join(f"{verdict}: {number}" for verdict, number in counts.most_common())
    sentences = [f"Rows of Table 1 by verdict: {said}.", _scales(runs)]
    return Answer(head, [s for s in sentences if s], state="good" if won else "open")


def _scales(runs: Sequence[Reported]) -> str:
    """A warning where searches are smaller than the paper's."""
    own = [run.source.config for run in runs if paper.identify(run.source.config)]
    small = [c for c in own if c["dataset"]["train_examples"] or len(c["seeds"]) < 5]
    if not small:
        return ""
    said = (
        f"{len(small)} of {len(own)} runs have fewer images or seeds than the paper: they show whether winning tickets "
    )
    return said + "beat random ones, not how good a network is."


def _table1(runs: Sequence[Reported], out: Path) -> tuple[Section, list[Path]]:
    anchors = {id(run.source): f"#{run.anchor}" for run in runs}
    rows = networks.rows([run.source for run in runs])
    table = networks.table(rows, [anchors[id(source)] if source else "" for _, source in rows])
    files = tables.write(table, out / "tables")
    short = [[line[i] for i in (0, 1, 2, 3, 5, 7)] for line in table.rows]
    text = ["", "Table 1", *tables.as_text(Table([table.header[i] for i in (0, 1, 2, 3, 5, 7)], short))]
    said = (
        "A measured number leads to its run, with configuration and command.",
        "Verdict: agrees where the measured winning sparsity is the paper's to within one round of pruning, or beyond "
        "it; undecided where two seeds cannot tell winning from random tickets. The paper judges VAEs and GANs by FID; "
        "fd is the Frechet distance in another network's features.",
        "The dense loss is the training loss: where it still falls, training was too short to say how good the dense "
        "network is.",
    )
    return Section(text, [tables.as_html(table), *map(sections.paragraph, said)], files, "Table 1"), files


def _table2(runs: Sequence[Reported], out: Path) -> Section:
    """The paper's numbers, and the measured ones by method and compression."""
    header = [
        "method",
        "paper: FID",
        "weights",
        "FLOPs",
        "seconds",
        "measured at",
        "quality",
        "weights",
        "FLOPs",
        "seconds",
    ]
    lines: list[list[str]] = []
    links: dict[tuple[int, int], str] = {}
    run = runs[0] if runs else None
    found = methods.rows(run.source.results) if run else []
    metric = (
        methods.judged_by(run.source.results, {r.metric: run.source.better(r.metric) for r in run.source.results})
        if run
        else ""
    )
    for method in paper.TABLE2:
        told = [method.name, f"{method.fid}", f"{method.weights:,}", f"{method.flops:.3g}", f"{method.seconds:,.0f}"]
        own = [row for row in found if row.method == method.name]
        for row in own:
            quality = cell(row.points[metric]) if metric in row.points else ""
            at = f"{row.compression:.1%}" if row.compression else "dense"
            costs = [f"{row.mean('weights'):,.0f}", f"{row.mean('flops'):.3g}", f"{row.mean('training_seconds'):.3g}"]
            links[len(lines), 0] = f"#{run.anchor}" if run else ""
            lines.append([*told, at, quality, *costs])
        if not own:
            lines.append([*told, networks.MISSING, "", "", "", ""])
    caption = "Table 2: ways to a smaller DCGAN on CIFAR-10" + (
        f", quality by {panels.words(metric)}" if metric else ""
    )
    table = Table(header, lines, "table2", caption, {}, links, (0,))
    files = tables.write(table, out / "tables")
    body = [tables.as_html(table)] + (
        [] if run else [_missing("table2", [("all methods", paper.TABLE2_CONFIG, NOT_GIVEN)])]
    )
    return Section(["", "Table 2", *tables.as_text(table)], body, files, "Table 2")


def _figure(figure: Figure, by_name: dict[str, list[Reported]], out: Path, pdf: bool) -> Section:
    drawn = [_item(item, by_name, out / "figures" / figure.name, pdf) for item in figure.items]
    shown = [panel for part in drawn for panel in part.panels]
    gaps = [part.item.title for part in drawn if part.missing]
    files = [file for part in drawn for file in part.files]
    body: list[Markup] = [sections.paragraph(f"The paper: {figure.says}")]
    if shown:
        draw: Callable[[Path], list[Path]] = lambda path: figures.of_runs(shown, path, gaps)  # noqa: E731
        files += draw(out / "figures" / figure.name)
        if pdf:
            files += draw(out / "paper" / f"{figure.name}.pdf")
        caption = f"Figure {figure.number}: {figure.title}; bars are one standard deviation over seeds"
        body.append(charts.html([charts.against_sparsity(panel) for panel in shown], caption, files))
    body += [piece for part in drawn for piece in part.body]
    sources = {part.run.name: part.run for part in drawn if part.run and not part.missing}
    if sources:
        body.append(markup.render("runs.html", runs=list(sources.values())))
    if gaps:
        body.append(_missing(figure.name, [(p.item.title, p.item.config, p.missing) for p in drawn if p.missing]))
    there = len(drawn) - len(gaps)
    text = [f"Figure {figure.number}: {there} of {len(drawn)} panels"]
    if figure is paper.FIGURES[0]:
        text.insert(0, "")
    return Section(text, body, files, f"Figure {figure.number}: {figure.title}")


def _missing(only: str, gaps: Sequence[tuple[str, str, str]]) -> Markup:
    """What is missing: title, configuration, and why; and the command that makes it."""
    return markup.render("missing.html", command=COMMAND + only, gaps=gaps)


def _item(item: Item, by_name: dict[str, list[Reported]], path: Path, pdf: bool) -> Drawn:
    """A panel by the first of its runs that has what it shows."""
    part = Drawn(item, missing=NOT_GIVEN)
    for run in by_name.get(item.config, []):
        part = DRAW[item.kind](item, run, by_name, path, pdf)
        if not part.missing:
            return part
    return part


def _sparsity(item: Item, run: Reported, by_name: dict[str, list[Reported]], path: Path, pdf: bool) -> Drawn:
    metric = _metric(item, run)
    if not metric:
        return Drawn(item, run, missing=f"the run {run.name} has no {' or '.join(item.metrics)}*")
    points = run.source.points(metric)
    lacking = [arm for arm in item.arms if not any(p.arm == arm for p in points)]
    if lacking:
        return Drawn(
            item, run, missing=f"the run {run.name} has no {' and no '.join(map(panels.words, lacking))} tickets"
        )
    found = [run.source.winning(metric, pruned) for pruned in panels.choices(points)]
    wins = [win for win in found if win]
    return Drawn(item, run, [panels.of_components(points, metric, wins, item.title, item.arms)])


def _rewinding(item: Item, run: Reported, by_name: dict[str, list[Reported]], path: Path, pdf: bool) -> Drawn:
    """Winning tickets of two runs: from the rewind step, and from initialization."""
    others = by_name.get(item.config + paper.REWOUND, [])
    metric = next((m for other in others if (m := _metric(item, run)) and other.source.points(m)), "")
    if not metric:
        return Drawn(item, run, missing=f"no run of {item.config}{paper.REWOUND} with the same metric was given")
    other = next(o for o in others if o.source.points(metric))
    panel = panels.of_components(run.source.points(metric), metric, [], item.title, ("winning",))
    step = run.source.config["imp"]["rewind_step"]
    zero = panels.of_components(other.source.points(metric), metric, [], item.title, ("winning",)).lines[0]
    lines = [
        panel.lines[0]._replace(label=f"rewound to step {step}"),
        Line("rewound to step 0", "rewound_to_0", zero.points),
    ]
    return Drawn(item, run, [panel._replace(lines=lines)])


def _early_stopping(item: Item, run: Reported, by_name: dict[str, list[Reported]], path: Path, pdf: bool) -> Drawn:
    found = convergence.stops(run.source)
    if not found:
        return Drawn(item, run, missing=f"the run {run.name} kept no curves of a loss")
    return Drawn(item, run, [found[0].panels[0]._replace(title=item.title)])


def _pictures(item: Item, run: Reported, by_name: dict[str, list[Reported]], path: Path, pdf: bool) -> Drawn:
    grids = sections.grids(run.source)
    if not grids:
        return Drawn(item, run, missing=f"the run {run.name} kept no images")
    kind = "samples" if "samples" in grids else next(iter(grids))
    at = run.answer.win.sparsity if run.answer.win else None
    name = f"{path.name}_{markup.anchor(item.title)}"
    files = figures.image_grid(grids[kind], path.with_name(name), at)
    if pdf:
        files += figures.image_grid(grids[kind], path.parents[1] / "paper" / f"{name}.pdf", at)
    said = f"{item.title}: {kind} by sparsity" + (", red: the sparsest row up to the winning sparsity" if at else "")
    return Drawn(item, run, body=[sections.embedded(files, said)], files=files)


def _methods(item: Item, run: Reported, by_name: dict[str, list[Reported]], path: Path, pdf: bool) -> Drawn:
    results = run.source.results
    rows = methods.rows(results)
    metric = methods.judged_by(results, {r.metric: run.source.better(r.metric) for r in results})
    files = figures.costs(rows, metric, path)
    if pdf:
        files += figures.costs(rows, metric, path.parents[1] / "paper" / f"{path.name}.pdf")
    chart = charts.html(sections.costs(rows, metric), "Quality against FLOPs, and costs against compression", files)
    return Drawn(item, run, body=[chart], files=files)


DRAW: dict[str, Callable[..., Drawn]] = {
    "sparsity": _sparsity,
    "rewinding": _rewinding,
    "early_stopping": _early_stopping,
    "pictures": _pictures,
    "methods": _methods,
}


def _metric(item: Item, run: Reported) -> str:
    """The metric of a run that a panel shows: by the first prefix that one has; empty if there is none."""
    there = list(dict.fromkeys(r.metric for r in run.source.results if r.arm == "winning"))
    for prefix in item.metrics:
        exact = [name for name in there if name == prefix]
        close = [name for name in there if name.startswith(prefix) and not name.endswith("_on_originals")]
        if exact or close:
            return (exact or close)[0]
    return ""
