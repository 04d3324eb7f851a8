"""report.html in one file, and the summary that is printed; one page for one run and for many."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from lotto_jax.reports import answer, costs, markup, panels, paper, settings, summary, tables, terms
from lotto_jax.reports.answer import Answer
from lotto_jax.reports.source import Section, Source
from lotto_jax.runs import directory as directories
from lotto_jax.runs import results
from lotto_jax.runs.files import write_atomically

REPORT = "report.html"
Figures = Sequence[Callable[[Source], list[Section]]]


class Reported(NamedTuple):
    """A run and what a report says of it.

    Attributes:
      name: short, unique on a page; it is the anchor of the run.
      source: what it is made from.
      answer: its head.
      sections: its pieces.
      figures: the functions that made them.
    """

    name: str
    source: Source
    answer: Answer
    sections: list[Section]

    @property
    def anchor(self) -> str:
        """Where links to the run lead."""
        return f"run-{markup.anchor(self.name)}"


def source_of(path: Path, unfinished: str = "", **places: Any) -> Source:
    """What there is of a run.

    Args:
      path: of the run.
      unfinished: what it has still to do, in words; empty if it is done.
      **places: `out`, `pictures` and `paper` of the source.

    Raises:
      ValueError: if the directory holds no results yet.
    """
    rows = results.read(path)
    if not rows:
        raise ValueError(f"There are no results in {path} yet; start or finish its run first.")
    run = directories.read_config(path)
    config = run["config"]
    name = paper.network(config) or _network(config)
    title = f"{name} on {rows[0].dataset}, {settings.count(len(config['seeds']), 'seed')}"
    title += f", {settings.count(config['train']['epochs'], 'epoch')}"
    return Source(path, config, rows, title + (f" (unfinished: {unfinished})" if unfinished else ""), run, **places)


def _network(config: dict[str, Any]) -> str:
    """`mlp by diffusion (v)`: a network of one's own, and what it is trained for where it has the choice."""
    name, objective = panels.words(config["model"]["name"]), config["objective"]
    if objective.get("name") in ("diffusion", "flow_matching"):
        name += f" by {panels.words(objective['name'])}"
        name += f" ({objective['prediction']})" if "prediction" in objective else ""
    source = config.get("transfer", {}).get("source")
    return f"transfer of {Path(source).name} to {name}" if source else name


def reported(name: str, source: Source, figures: Figures) -> Reported:
    """A run with its answer, its sections and what it cost."""
    made = [section for figure in (*figures, costs.section) for section in figure(source)]
    return Reported(name, source, answer.of(source), made)


def write(path: Path, figures: Figures, unfinished: str, parts: list[Path], paper: bool = False) -> str:
    """Write figures/, tables/ and report.html of a run, finished or not; return the summary as text.

    Args:
      path: of the run.
      figures: the sections of its experiment.
      unfinished: what it has still to do, in words; empty if it is done.
      parts: reports of the runs that it is made of.
      paper: whether to write paper/, the figures as PDF.

    Raises:
      ValueError: if the directory holds no results yet.
    """
    run = reported(path.name or "run", source_of(path, unfinished, paper=paper), figures)
    write_atomically(path / REPORT, html(run.source.title, run.answer, [], [run]))
    files = [file for section in run.sections for file in section.files if file.suffix in (".png", ".pdf", ".md")]
    shown = [file for file in files if file.parent.name != "tables"]
    text = [run.source.title, "", f"{run.answer.headline}.", *run.answer.sentences]
    text += [line for section in run.sections for line in section.text]
    text += ["", "Written (figures also as SVG, tables in tables/):"]
    return "\n".join([*text, *(f"  {file}" for file in (path / REPORT, *shown, *parts))])


def html(title: str, head: Answer, lead: Sequence[Section], runs: Sequence[Reported]) -> str:
    """The page.

    Args:
      title: of the page.
      head: what it says first.
      lead: sections above the runs, as those of the paper; empty for the page of one run.
      runs: what it is made from.
    """
    arms = list(dict.fromkeys(r.arm for run in runs for r in run.source.results))
    metrics = list(dict.fromkeys(m for run in runs for m in summary.metrics(run.source.results)))
    return markup.render(
        "page.html",
        title=title,
        head=head,
        lead=lead,
        runs=[(run, _setup(run.source)) for run in runs],
        alone=len(runs) == 1 and not lead,
        terms=terms.occurring(arms, metrics),
        anchor=markup.anchor,
        style=markup.asset("uplot/uPlot.min.css") + markup.asset("templates/page.css"),
        library=markup.asset("uplot/uPlot.iife.min.js"),
        program=markup.asset("templates/page.js"),
    )


def _setup(source: Source) -> Markup:
    """How a run was set up: facts, what differs from the default, and, folded, all of it."""
    return markup.render(
        "setup.html",
        facts=settings.facts(source),
        differing=tables.as_html(settings.differing(source.config)),
        config=source.config,
    )
