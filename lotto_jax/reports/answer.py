"""What a run says, in a few sentences: is there a winning ticket, how sparse, and how sure is that."""

from typing import NamedTuple

from lotto_jax.reports import panels, summary
from lotto_jax.reports.panels import words
from lotto_jax.reports.source import Source
from lotto_jax.reports.summary import Point, Winning, cell

DISTANCES = ("fid", "fd_")  # metrics that decide before others, as in the paper, the first before the second
BETTER = {"lower": "lower is better", "higher": "higher is better", "neither": "neither low nor high is better"}


class Answer(NamedTuple):
    """The head of a report.

    Attributes:
      headline: the answer.
      sentences: what it rests on.
      metric: that it is judged by; empty where nothing is judged.
      win: the winning sparsity of the first choice of pruned components, if it was decidable.
      strict: by the stricter rule.
      state: `good` with a winning ticket, `open` where it is undecided, else `none`.
    """

    headline: str
    sentences: list[str]
    metric: str = ""
    win: Winning | None = None
    strict: Winning | None = None
    state: str = "none"


def judged_by(source: Source) -> str:
    """The metric that decides: a Frechet distance of winning tickets, else their first metric with a direction."""
    named = dict.fromkeys(r.metric for r in source.results if r.arm == "winning")
    there = [name for name in named if source.better(name) != "neither"]
    distances = [name for prefix in DISTANCES for name in there if name.startswith(prefix)]
    return next(iter([*distances, *there]), "")


def of(source: Source) -> Answer:
    """The answer of a run."""
    moved = source.transferred()
    if metric := judged_by(source):
        found = _of_search(source, metric)
        if moved and any(p.arm == "winning" for p in moved.points(metric)):
            found.sentences.append(_of_transfer(_of_search(moved, metric)))
        return found
    arms = list(dict.fromkeys(r.arm for r in source.results if r.arm != "dense"))
    if not arms:
        return Answer("No tickets: the dense network alone", _values(source, ["dense"]))
    named = ", ".join(map(words, arms))
    return Answer(
        f"No search for winning tickets: {named} against the dense network", _values(source, ["dense", *arms])
    )


def _of_search(source: Source, metric: str) -> Answer:
    points, better = source.points(metric), BETTER[source.better(metric)]
    pruned = next(p.pruned for p in points if p.arm == "winning")
    win, strict = source.winning(metric, pruned), source.strictly_winning(metric, pruned)
    whole = "" if pruned == "both" else f", with the {pruned} alone pruned"
    seeds = max(len(p.values) + p.collapsed for p in points if p.arm == "winning")
    head = Answer("", [], metric, win, strict)
    if win is None:
        why = f"Undecided{whole}: {_obstacle(points)}"
        return head._replace(headline=why, sentences=[f"By {words(metric)}, {better}."], state="open")
    if win.sparsity is None:
        few = seeds < summary.STRICT_SEEDS
        found = "Undecided" if few else "No winning ticket"
        why = f" {seeds} seeds are too few to tell winning from random tickets." if few else ""
        tolerated = f"within {win.tolerance:.3g} of the dense network's {win.dense.mean:.4g}"
        sentence = f"By {words(metric)} ({better}) at no sparsity is the winning ticket {tolerated} and the random one "
        state = "open" if few else "none"
        return head._replace(headline=found + whole, sentences=[f"{sentence}significantly worse.{why}"], state=state)
    last = max(p.sparsity for p in points if (p.arm, p.pruned) == ("winning", pruned))
    most = ", the sparsest that was tried" if win.sparsity >= last - 1e-4 else ""
    at = {p.arm: p for p in points if p.pruned == pruned and abs(p.sparsity - win.sparsity) < 1e-4}
    sentences = [
        f"By {words(metric)} ({better}), mean ± standard deviation over {seeds} seeds: winning {cell(at['winning'])}, "
        f"dense {cell(win.dense)}, random {cell(at['random'])}.",
        f"Up to {win.tolerance:.3g} worse than the dense network counts as equally good; the random ticket is worse "
        f"than the winning one with p = {win.p_value:.2g} (one-sided Welch test).",
        _strictly(strict, win),
    ]
    headline = f"A winning ticket at {win.sparsity:.1%} sparsity{whole}{most}"
    return head._replace(headline=headline, sentences=sentences, state="good")


def _of_transfer(found: Answer) -> str:
    """What the same rules say of the transferred tickets."""
    headline = found.headline[0].lower() + found.headline[1:]
    strict = "not tested"
    if found.strict is not None:
        strict = "none" if found.strict.sparsity is None else f"{found.strict.sparsity:.1%}"
    return f"Of the transferred tickets, by the same metric: {headline} (by the stricter rule: {strict})."


def _strictly(strict: Winning | None, win: Winning) -> str:
    """The stricter rule beside the other."""
    if strict is None:
        return f"Not tested by the stricter rule, which takes {summary.STRICT_SEEDS} seeds: weak evidence."
    if strict.sparsity is None:
        return "By the stricter rule, which corrects for the number of sparsities tested, there is no winning ticket."
    if win.sparsity is not None and abs(strict.sparsity - win.sparsity) < 1e-4:
        return f"The stricter rule says the same (Holm-corrected p = {strict.p_value:.2g})."
    return (
        f"By the stricter rule, which corrects for the number of sparsities tested and lets no lower one fail, it is "
        f"{strict.sparsity:.1%} (p = {strict.p_value:.2g})."
    )


def _obstacle(points: list[Point]) -> str:
    """Why the winning sparsity is not decidable."""
    if panels.dense_of(points) is None:
        return "the dense network was not measured"
    random = [p for p in points if p.arm == "random"]
    if not random:
        return "there is no random arm to compare with"
    return "it takes two seeds or more of winning and random tickets"


def _values(source: Source, arms: list[str]) -> list[str]:
    """Means of the metrics with a direction, at most three of them, of the last sparsity of each arm."""
    directed = [name for name in summary.metrics(source.results) if source.better(name) != "neither"][:3]
    sentences = []
    for metric in directed:
        points = source.points(metric)
        last = {p.arm: p for p in sorted(points, key=lambda p: p.sparsity) if p.arm in arms}
        shown = [f"{words(a)} {cell(p)}" + (f" at {p.sparsity:.1%}" if p.sparsity else "") for a, p in last.items()]
        sentences.append(f"{words(metric)} ({BETTER[source.better(metric)]}): {', '.join(shown)}.")
    return sentences
