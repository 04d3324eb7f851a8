"""What a report is made from, and the pieces that it is made of."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lotto_jax.objectives.state import Better
from lotto_jax.reports import summary
from lotto_jax.reports.summary import Point, Winning
from lotto_jax.runs import provenance
from lotto_jax.runs.results import Result


class Source(NamedTuple):
    """A run as a report sees it.

    Attributes:
      path: the run directory.
      config: its configuration as JSON has it.
      results: the rows of results.csv.
      title: of the report.
      run: what config.json says besides: `digest`, `versions`, `begun`.
      out: where figures and tables go; None is the run directory.
      pictures: whether figures that the page draws by itself are drawn as files, too.
      paper: whether figures are drawn as PDF, too.
    """

    path: Path
    config: dict[str, Any]
    results: list[Result]
    title: str
    run: Mapping[str, Any] = {}
    out: Path | None = None
    pictures: bool = True
    paper: bool = False

    def figure(self, name: str) -> Path:
        """Where a figure goes, without suffix."""
        return (self.out or self.path) / "figures" / name

    @property
    def tables(self) -> Path:
        """Where tables go."""
        return (self.out or self.path) / "tables"

    def draw(self, name: str, drawn: Callable[[Path], list[Path]], always: bool = False) -> list[Path]:
        """The files of a figure: none where the page is enough, unless `always`; with a PDF if one is wanted."""
        files = drawn(self.figure(name)) if self.pictures or always else []
        if self.paper:
            files = files + drawn((self.out or self.path) / "paper" / f"{name}.pdf")
        return files

    def measured(self, metric: str) -> dict[str, Any]:
        """What metrics.json says of a metric."""
        return provenance.read(self.path).get(metric, {})

    def better(self, metric: str) -> Better:
        """Which values of a metric are better; neither where the run does not say."""
        return self.measured(metric).get("better", "neither")

    def tolerance(self, metric: str) -> float:
        """How much worse than the dense mean a winning ticket may be by a metric; 0 for the default."""
        return self.config["report"]["tolerance"] or self.measured(metric).get("tolerance", 0.0)

    def points(self, metric: str) -> list[Point]:
        """Measurements of a metric over seeds."""
        return summary.points(self.results, metric)

    def transferred(self) -> "Source | None":
        """The run with its transferred tickets in the place of the winning ones, to judge them; None without them."""
        if not any(r.arm == "transfer" for r in self.results):
            return None
        names = {"transfer": "winning", "winning": "own"}
        return self._replace(results=[r._replace(arm=names.get(r.arm, r.arm)) for r in self.results])

    def winning(self, metric: str, pruned: str) -> Winning | None:
        """The winning sparsity; None if it is not decidable (`summary.winning`)."""
        return summary.winning(self.points(metric), self.better(metric), pruned, self.tolerance(metric))

    def strictly_winning(self, metric: str, pruned: str) -> Winning | None:
        """The same by the stricter rule (`summary.strictly_winning`)."""
        return summary.strictly_winning(self.points(metric), self.better(metric), pruned, self.tolerance(metric))


class Section(NamedTuple):
    """A piece of a report.

    Attributes:
      text: lines for the terminal.
      body: HTML.
      files: that it wrote.
      title: of the piece on the page; one without a title has its headings in the body.
    """

    text: list[str]
    body: Sequence[str]
    files: Sequence[Path] = ()
    title: str = ""
