"""Winning against random tickets of several runs: one picture, and a line of the results table for each.

python scripts/curves.py PICTURE.png RUN:METRIC[:TITLE] ...

A RUN is a run directory, or one of .assets/results.
"""

import argparse
from pathlib import Path

from lotto_jax.reports import figures, panels, summary
from lotto_jax.runs import provenance
from lotto_jax.runs.results import read as read_results


def main() -> None:
    """Read, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("runs", nargs="+", metavar="RUN:METRIC[:TITLE]")
    args = parser.parse_args()
    runs: dict[str, panels.Panel] = {}
    for given in args.runs:
        path, metric, title = [*given.split(":"), "", ""][:3]
        results, entry = read_results(Path(path)), provenance.read(Path(path)).get(metric, {})
        points = summary.points(results, metric)
        if not any(p.arm == "winning" for p in points):
            parser.error(f"{path} has no winning tickets with metric {metric!r}; it has {summary.metrics(results)}.")
        pruned, better = next(p.pruned for p in points if p.arm == "winning"), entry.get("better", "neither")
        win = summary.winning(points, better, pruned, entry.get("tolerance", 0.0))
        title = title or f"{results[0].model} on {results[0].dataset}".replace("_", " ")
        if title in runs:
            parser.error(f"two runs are titled {title!r}; give {given}:TITLE.")
        runs[title] = panels.of_choice(points, metric, pruned, [win] if win else [], title)
        print(f"{title}: " + (summary.sentence(win, metric) if win else f"{metric} has no better and worse."))
        header, rows = summary.table(points)
        for row in [header, *rows]:
            print("  " + " | ".join(row))
    figures.of_runs(list(runs.values()), args.picture.with_suffix(""))


if __name__ == "__main__":
    main()
