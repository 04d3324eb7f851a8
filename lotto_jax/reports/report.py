"""Everything a reader wants from a run directory: a printed summary, figures, and report.html in one file."""

import base64
import html
import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from lotto_jax.experiments.run_directory import PARTS, Result, read_log, read_results, write_atomically
from lotto_jax.reports import figures, summary, table2

GLOSSARY = """\
<b>dense</b>: the whole network. <b>winning</b>: the mask of iterative magnitude pruning, started from the state at the
rewind step. <b>random</b>: the same mask from a fresh initialization. <b>random_pruned</b>: a random mask of the same
sparsity in every layer, started from the rewind step. <b>one_shot</b>: pruned at once instead of round by round.
<b>snip</b>, <b>grasp</b>: pruned at initialization, by connection sensitivity or by gradient flow, and trained.
<b>early_bird</b>: what is left of the dense network once the mask of its channels settled and those channels were
removed, trained on (<b>early_bird_mixed</b>: in mixed precision); its sparsity is the share of channels.
<b>Sparsity</b>: the share of the whole network's weights that is pruned. <b>winning_sparsity</b>: the largest sparsity
at which the winning mean is within the tolerance of the dense mean (the larger of one dense standard deviation and
10 %; 10 points of FID; or as configured) and the random arm is significantly worse (one-sided Welch test, p &lt;
0.05)."""
TABLE2 = """\
Mean (± standard deviation) over seeds; in brackets the share of the unpruned network's. Compression is the share of
channels that early-bird tickets lose, and of weights that the others lose, whose masks save neither storage nor
operations. Mixed precision is that of config.early_bird.mixed_precision; float8 is emulated. FLOPs and seconds are of
all the training that a ticket needs, its search included (the pruning itself in FLOPs only); seconds are those of one
ticket's devices, without compilation, and of tickets that trained together their common mean, which has no spread."""
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { white-space: nowrap; padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th { background: #f6f6f6 }
img { max-width: 100%; margin: .5rem 0 } pre { background: #f6f6f6; padding: .7rem; overflow: auto; font-size: 12px }
"""


def write(workdir: Path) -> str:
    """Write figures/ and report.html of a run, finished or not; return the summary as text.

    Raises:
      ValueError: if the directory holds no results yet.
    """
    results = read_results(workdir)
    if not results:
        raise ValueError(f"There are no results in {workdir} yet; run `lotto-jax run --workdir={workdir}` first.")
    run = json.loads((workdir / "config.json").read_text())
    config = run["config"]
    if config["experiment"] == "table2":
        return _write_table2(workdir, results, run)
    title = f"{results[0].model.replace('_', ' ')} on {results[0].dataset}, " + _count(len(config["seeds"]), "seed")
    title += ", " + _count(config["train"]["epochs"], "epoch") + _unfinished(results, config)
    text, body, files = [title], [f"<h1>{html.escape(title)}</h1>"], []
    measured_with = _measured_with(workdir)
    for metric in summary.metrics(results):
        points = summary.points(results, metric)
        choices = list(dict.fromkeys(p.pruned for p in points if p.arm == "winning"))
        found = [summary.winning(points, metric, pruned, config["report"]["tolerance"]) for pruned in choices]
        wins = [win for win in found if win is not None]
        sentences = [summary.sentence(win, metric) for win in wins]
        sources = [f"Measured with: {measured_with[metric]}."] if metric in measured_with else []
        text += ["", f"{metric} (mean ± standard deviation over seeds)"]
        body += [f"<h2>{html.escape(metric)}</h2>", *(f"<p>{html.escape(s)}</p>" for s in [*sentences, *sources])]
        if choices:
            path = workdir / "figures" / f"{metric}_against_sparsity"
            files += figures.against_sparsity(points, metric, wins, title, path)
            body += [_embedded(files[-2])]
        for choice in choices or list(dict.fromkeys(p.pruned for p in points if p.arm != "dense")) or ["both"]:
            table = summary.table([p for p in points if p.pruned == choice or p.arm == "dense"])
            text += [f"\n{choice} pruned:" if len(choices) > 1 else "", *_aligned(*table)]
            body += [f"<h3>{choice} pruned</h3>" if len(choices) > 1 else "", _html_table(*table)]
        text += ["", *sentences]
    log = read_log(workdir)
    if any(p["arm"] == "winning" for p in log):
        known = {"position", "pruned", "round", "arm", "seed", "sparsity", "step"}
        for name in [key for key in log[-1] if key not in known]:
            files += figures.training_curves(log, name, workdir / "figures" / f"{name}_curves")
            body += [f"<h2>Training: {html.escape(name)}</h2>", _embedded(files[-2])]
    if (history := _loaded(workdir / "channel_masks.safetensors")) is not None:
        files += figures.mask_distances(history, config["early_bird"], workdir / "figures" / "mask_distances")
        body += ["<h2>Channel masks during the search</h2>", _embedded(files[-2])]
    if (pictures := _loaded(workdir / "images.safetensors")) is not None:
        for kind in dict.fromkeys(name.split("/")[0] for name in pictures if "/" in name):
            chosen = {name.partition("/")[2]: p for name, p in pictures.items() if name.startswith(f"{kind}/")}
            if kind == "reconstructions":
                chosen["original"] = pictures["original"]
            if all(name.startswith("dense/") for name in chosen if "/" in name):
                continue  # nothing to compare
            files += figures.image_grid(chosen, workdir / "figures" / kind)
            body += [f"<h2>{kind.capitalize()}</h2>", _embedded(files[-2])]
    return _write_page(workdir, run, title, text, body, files)


def _write_page(
    workdir: Path, run: dict[str, Any], title: str, text: list[str], body: list[str], files: list[Path]
) -> str:
    """Write report.html; return the text with what was written."""
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    body += ["<h2>Terms</h2>", f"<p>{GLOSSARY}</p>"]
    body += [f"<h2>Configuration {run['digest']}</h2><p>{html.escape(versions)}</p>"]
    body += [f"<pre>{html.escape(json.dumps(run['config'], indent=2))}</pre>"]
    page = f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>"
    write_atomically(workdir / "report.html", page + "\n".join(body) + "\n")
    shown = [workdir / "report.html", *(f for f in files if f.suffix != ".svg")]
    return "\n".join([*text, "", "Written (figures also as SVG):", *(f"  {path}" for path in shown)])


def _write_table2(workdir: Path, results: list[Result], run: dict[str, Any]) -> str:
    """The report of a run of Table 2, and those of its parts."""
    config = run["config"]
    title = f"Table 2: {results[0].model.replace('_', ' ')} on {results[0].dataset}, "
    title += f"{_count(len(config['seeds']), 'seed')}, {_count(config['train']['epochs'], 'epoch')}"
    begun = [part for part in PARTS if (workdir / part / "results.csv").exists()]
    for part in PARTS:
        own = [r for r in results if r.experiment == part]
        title += _unfinished(own, config | {"experiment": part}) if own else f" (unfinished: no {part} yet)"
    header, rows = table2.table(results)
    write_atomically(workdir / "table2.md", table2.as_markdown(header, rows))
    write_atomically(workdir / "table2.csv", table2.as_csv(results))
    files = figures.costs(table2.rows(results), table2.judged_by(results), workdir / "figures" / "costs")
    files = [workdir / "table2.md", workdir / "table2.csv", *files]
    text = [title, "", *_aligned(header, rows), "", *textwrap.wrap(TABLE2, 120)]
    body = [f"<h1>{html.escape(title)}</h1>", _html_table(header, rows), f"<p>{TABLE2}</p>", _embedded(files[-2])]
    body += [f"<p>{html.escape(f'{metric}: {words}.')}</p>" for metric, words in _measured_with(workdir).items()]
    for part in begun:
        write(workdir / part)
        files.append(workdir / part / "report.html")
    return _write_page(workdir, run, title, text, body, files)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("s" if number != 1 else "")


def _unfinished(results: list[Result], config: dict[str, Any]) -> str:
    """What a run has still to do, for the title; nothing if it is done."""
    if config["experiment"] == "early_bird":
        done = len({(r.round, r.arm, r.seed) for r in results if r.arm != "dense"})
        arms = len(set(config["early_bird"]["arms"]) - {"dense"})
        tickets = arms * len(config["early_bird"]["compressions"]) * len(config["seeds"])
        return "" if done == tickets else f" (unfinished: {done} of {tickets} tickets done)"
    imp = config["imp"]
    rounds = max(r.round for r in results if r.arm != "one_shot")
    one_shot_left = bool(imp["one_shot_sparsities"]) and not any(r.arm == "one_shot" for r in results)
    if rounds == imp["rounds"] and not one_shot_left:
        return ""
    return f" (unfinished: {rounds} of {imp['rounds']} rounds done" + (", one-shot to come)" if one_shot_left else ")")


def _measured_with(workdir: Path) -> dict[str, str]:
    """By metric, the entries of metrics.json in words."""
    file = workdir / "metrics.json"
    entries = json.loads(file.read_text()) if file.exists() else {}
    words = lambda entry: ", ".join(f"{field.replace('_', ' ')} {value}" for field, value in entry.items())  # noqa: E731
    return {metric: words(entry) for metric, entry in entries.items()}


def _loaded(path: Path) -> dict[str, np.ndarray] | None:
    try:
        return load(path.read_bytes())
    except (FileNotFoundError, SafetensorError):
        return None


def _aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]


def _html_table(header: list[str], rows: list[list[str]]) -> str:
    cells = lambda tag, row: "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)  # noqa: E731
    lines = [f"<tr>{cells('td', row)}</tr>" for row in rows]
    return f"<table><tr>{cells('th', header)}</tr>{''.join(lines)}</table>"


def _embedded(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}">'
