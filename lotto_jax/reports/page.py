"""report.html in one file, and the summary that is printed."""

import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from lotto_jax.reports.sections import Section, Source
from lotto_jax.runs import directory as directories
from lotto_jax.runs import results
from lotto_jax.runs.files import write_atomically

REPORT = "report.html"
GLOSSARY = """\
<b>dense</b>: the whole network. <b>winning</b>: the mask of iterative magnitude pruning, started from the state at the
rewind step. <b>random</b>: the same mask from a fresh initialization. <b>random_pruned</b>: a random mask of the same
sparsity in every layer, started from the rewind step. <b>one_shot</b>: pruned at once instead of round by round.
<b>snip</b>, <b>grasp</b>: pruned at initialization, by connection sensitivity or by gradient flow, and trained.
<b>early_bird</b>: what is left of the dense network once the mask of its channels settled and those channels were
removed, trained on (<b>early_bird_mixed</b>: in mixed precision); its sparsity is the share of channels.
<b>transfer</b>: mask and rewound weights that another search found for a component, in a network that begins anew.
<b>Sparsity</b>: the share of the whole network's weights that is pruned. <b>winning_sparsity</b>: the largest sparsity
at which the winning mean is within the tolerance of the dense mean (the larger of one dense standard deviation and
10 %; 10 points of FID; or as configured) and the random arm is significantly worse (one-sided Welch test, p &lt;
0.05). <b>strict_winning_sparsity</b>: the same, but the winning mean is within the tolerance at all lower sparsities,
too, and p is corrected by Holm's method for how many sparsities are tested; it takes three seeds."""
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { white-space: nowrap; padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th { background: #f6f6f6 }
img { max-width: 100%; margin: .5rem 0 } pre { background: #f6f6f6; padding: .7rem; overflow: auto; font-size: 12px }
"""


def write(path: Path, figures: Sequence[Callable[[Source], list[Section]]], unfinished: str, parts: list[Path]) -> str:
    """Write figures/ and report.html of a run, finished or not; return the summary as text.

    Args:
      path: of the run.
      figures: the sections of its experiment.
      unfinished: what it has still to do, in words; empty if it is done.
      parts: reports of the runs that it is made of.

    Raises:
      ValueError: if the directory holds no results yet.
    """
    rows = results.read(path)
    if not rows:
        raise ValueError(f"There are no results in {path} yet; run `lotto-jax run --workdir={path}` first.")
    run = directories.read_config(path)
    config = run["config"]
    title = f"{rows[0].model.replace('_', ' ')} on {rows[0].dataset}, {_count(len(config['seeds']), 'seed')}"
    title += f", {_count(config['train']['epochs'], 'epoch')}" + (f" (unfinished: {unfinished})" if unfinished else "")
    source = Source(path, config, rows, title)
    made = [section for figure in figures for section in figure(source)]
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    body = [f"<h1>{html.escape(title)}</h1>", *(line for section in made for line in section.body)]
    body += ["<h2>Terms</h2>", f"<p>{GLOSSARY}</p>"]
    body += [f"<h2>Configuration {run['digest']}</h2><p>{html.escape(versions)}</p>"]
    body += [f"<pre>{html.escape(json.dumps(config, indent=2))}</pre>"]
    page = f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>"
    write_atomically(path / REPORT, page + "\n".join(body) + "\n")
    files = [file for section in made for file in section.files if file.suffix != ".svg"]
    text = [title, *(line for section in made for line in section.text), "", "Written (figures also as SVG):"]
    return "\n".join([*text, *(f"  {file}" for file in (path / REPORT, *files, *parts))])


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("s" if number != 1 else "")
