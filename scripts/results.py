"""The tables of docs/results.md from the results that are kept: `python scripts/results.py [--docs | --check]`.

`python scripts/results.py --keep=RUN [--name=NAME]` copies what tables need of a run into .assets/results/NAME:
results.csv, metrics.json, config.json (which has the command), progress.json, and the dense network's training curves.
`--docs` writes the tables between the lines `<!-- NAME -->` and `<!-- end -->` of docs/results.md, `--check` fails if
they are others there, or if README.md has other winning sparsities. Without either, the tables are printed.
"""

import argparse
import csv
import math
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lotto_jax.reports import page, paper, settings, summary, tables  # noqa: E402  (the root comes first)
from lotto_jax.reports import table1 as networks  # noqa: E402
from lotto_jax.reports.curves import COLUMNS  # noqa: E402
from lotto_jax.reports.source import Source  # noqa: E402
from lotto_jax.reports.tables import Table  # noqa: E402
from lotto_jax.runs import curves  # noqa: E402
from lotto_jax.runs.curves import CURVES  # noqa: E402
from lotto_jax.runs.directory import CONFIG, PROGRESS, read_config  # noqa: E402
from lotto_jax.runs.provenance import METRICS  # noqa: E402
from lotto_jax.runs.results import RESULTS  # noqa: E402

KEPT, PAGE, README = ROOT / ".assets" / "results", ROOT / "docs" / "results.md", ROOT / "README.md"
POINTS = 200  # of a kept curve, each the mean of the points up to it
LEFT_OUT = ("precision", "recall", "kl", "accuracy_on_originals")  # metrics that decide nothing
HEADER = (
    "network, dataset",
    "pruned",
    "by",
    "scale",
    "winning_sparsity",
    "strict",
    "winning / dense / random there",
    "paper",
    "verdict",
    "dense loss, last tenth",
)


def keep(run: Path, directory: Path, source: str = "") -> None:
    """Copy what the tables need of a run; its directory becomes `runs/NAME`, that of a transfer's source too."""
    directory.mkdir(parents=True, exist_ok=True)
    places = {str(place): f"runs/{directory.name}" for place in (run, run.absolute(), run.resolve())}
    if told := read_config(run)["config"].get("transfer", {}).get("source"):
        places[told] = f"runs/{source or Path(told).name}"
    for name in (RESULTS, METRICS, CONFIG, PROGRESS, "table2.csv"):
        if (run / name).exists():
            text = (run / name).read_text()
            for place in sorted(places, key=len, reverse=True):
                text = re.sub(rf"{re.escape(place)}(?![\w-])", places[place], text)
            (directory / name).write_text(text)
    log = [point for point in curves.read(run) if point["arm"] == "dense"]
    (directory / CURVES).unlink(missing_ok=True)
    curves.append(directory, thinned(log))


def thinned(log: list[dict]) -> list[dict]:
    """At most so many points of every seed, each the mean of the points up to it."""
    made = []
    for seed in dict.fromkeys(point["seed"] for point in log):
        own = sorted((p for p in log if p["seed"] == seed), key=lambda p: p["step"])
        every = -(-len(own) // POINTS)
        for end in range(len(own), 0, -every):
            group = own[max(0, end - every) : end]
            means = {k: sum(p[k] for p in group) / len(group) for k in group[-1] if k not in COLUMNS}
            made.append({**group[-1], **means})
    return sorted(made, key=lambda p: p["position"])


def kept() -> list[Source]:
    """The runs that are kept, in the order of the paper's Table 1."""
    found = [page.source_of(file.parent) for file in sorted(KEPT.glob(f"*/{RESULTS}"))]
    order = [network.config for network in paper.TABLE1]

    def rank(source: Source) -> int:
        name = (paper.identify(source.config) or "").partition(":")[0]
        return order.index(name) if name in order else len(order)

    return sorted(found, key=rank)


def lines(source: Source) -> list[list[str]]:
    """Rows of a run: for each metric that decides, the first one first, and each choice of pruned components."""
    name = paper.identify(source.config) or ""
    network = next((row for row in paper.TABLE1 if row.config == name.partition(":")[0]), None)
    title = f"{network.name}, {network.dataset}" if network else source.title.split(",")[0]
    if name.endswith(paper.REWOUND):
        title += ", rewound to initialization"
    source = source.transferred() or source
    first = networks.by_answer(source)
    there = [r.metric for r in source.results if r.arm == "winning" and source.better(r.metric) != "neither"]
    there = [
        m
        for m in dict.fromkeys(there)
        if not m.startswith(LEFT_OUT) and (m != "reconstruction_loss" or "loss" not in there)
    ]
    there.sort(key=lambda metric: first is None or metric != first.metric)
    made = []
    for metric in there:
        own = source.points(metric)
        for pruned in dict.fromkeys(p.pruned for p in own if p.arm == "winning"):
            found = networks.measured(source, metric, pruned)
            decides = (
                first is not None
                and (metric, pruned) == (first.metric, first.pruned)
                and not name.endswith(paper.REWOUND)
            )
            told = network.sparsity if network and decides else None
            said = networks.verdict(found, told, source.config["imp"]["fraction"])
            last = " (the last)" if found.win and found.win.sparsity and found.win.sparsity >= found.last - 1e-4 else ""
            shown = "undecided" if said == "undecided" else networks.sparsity(found.win) + last
            made.append(
                [
                    title,
                    pruned,
                    f"`{metric}`",
                    f"{settings.scale(source)}, {settings.count(found.seeds, 'seed')}",
                    shown,
                    networks.strictly(found),
                    networks.values(found),
                    f"{told:.1%}" if told else "",
                    said if told or said == "undecided" else "",
                    networks.falling(found),
                ]
            )
    return made


def table() -> Table:
    """All rows; what is as in the row above is left out."""
    rows: list[list[str]] = []
    for source in kept():
        own = lines(source)
        for above, line in zip(own[:1] + own, own, strict=False):
            repeated = above is not line
            rows.append(
                [("" if repeated and i in (0, 3, 9) and line[i] == above[i] else cell) for i, cell in enumerate(line)]
            )
    return Table(list(HEADER), rows)


def costs() -> Table:
    """Table 2 as it is kept, beside the paper's."""
    with open(next(KEPT.glob("*/table2.csv"))) as file:
        named = [(row.pop("method"), {k: float(v) for k, v in row.items()}) for row in csv.DictReader(file)]
    dense = named[0][1]
    metric = next(k for k in dense if k.startswith(("fid", "fd_")) and not k.endswith(("_std", "_seeds")))
    lines, before = [], ""
    for method, row in named:
        values = spread(row[metric], row[f"{metric}_std"], row[f"{metric}_seeds"])
        quality = summary.cell(summary.Point("", "", 0, 0.0, values))
        # Of a compacted network all weights are kept.
        weights = row["weights"] if math.isnan(row["nonzero_weights"]) else row["nonzero_weights"]
        if row is dense:
            numbers = ["", quality, f"{weights:,.0f}", f"{row['flops']:.2g}", f"{row['training_seconds']:.3g} s"]
        else:
            shares = [weights / dense["weights"], *(row[k] / dense[k] for k in ("flops", "training_seconds"))]
            numbers = [f"{row['compression']:.1%}", quality, *(f"{share:.0%}" for share in shares)]
        again = method == before
        lines.append(["" if again else method, *numbers, "" if again else told(method)])
        before = method
    header = ["method", "compression", f"`{metric}`", "weights that are not 0", "training FLOPs", "training time"]
    return Table([*header, "paper"], lines)


def told(method: str) -> str:
    """A row of the paper's Table 2: FID, and the costs, of all but the first as shares of the first."""
    unpruned, row = paper.TABLE2[0], next(m for m in paper.TABLE2 if m.name == method)
    if row is unpruned:
        return f"{row.fid:.1f} / {row.weights / 1e6:.2f} M / {row.flops:.3g} / {row.seconds:,.0f} s"
    shares = row.weights / unpruned.weights, row.flops / unpruned.flops, row.seconds / unpruned.seconds
    return " / ".join([f"{row.fid:.1f}", *(f"{share:.0%}" for share in shares)])


def spread(mean: float, std: float, seeds: float) -> tuple[float, ...]:
    """Numbers with this mean and sample standard deviation, for `summary.cell`, where single values were not kept."""
    if seeds < 2:
        return (mean,)
    offset = std * ((seeds - 1) / 2) ** 0.5
    return (mean - offset, mean + offset, *(mean for _ in range(int(seeds) - 2)))


def commands() -> str:
    """The command of every run that is kept, and where it ran."""
    rows = []
    for source in kept():
        begun = read_config(source.path).get("begun", {})
        added = begun.get("metrics added with", "")
        told = f"`{begun.get('command', 'unknown')}`" + (f", then `{added}`" if added else "")
        rows.append(
            f"- `{source.path.name}` ({begun.get('device', 'unknown')}, {begun.get('date', 'unknown')}): {told}"
        )
    return "\n".join(rows) + "\n"


def made() -> dict[str, str]:
    """What stands between the marks of docs/results.md."""
    return {"results": tables.as_markdown(table()), "table2": tables.as_markdown(costs()), "commands": commands()}


def written(text: str) -> str:
    """The page with today's tables."""
    for name, content in made().items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        text = "".join([before, mark, content, end, after])
    return text


def readme_disagrees() -> list[str]:
    """Rows of the README's table of results whose winning sparsity no kept run of that network and dataset has."""
    found = []
    measured: dict[tuple[str, str], set[str]] = {}
    for source in kept():
        for line in lines(source):
            network, _, dataset = line[0].partition(", ")
            measured.setdefault((network, dataset), set()).add(line[4].removesuffix(" (the last)"))
    section = README.read_text().partition("\n## Results\n")[2].partition("\n## ")[0]
    for row in re.findall(r"^\| (?!network|-)(.+) \|$", section, re.MULTILINE):
        network, dataset, _, said, *_ = [cell.strip() for cell in row.split("|")]
        known = measured.get((network, dataset), set())
        there = ", ".join(sorted(known)) or "nothing"
        number = said.replace(" %", "%")
        if number not in known and not ("undecided" in known and "significant" in said):
            found.append(f"README.md says {said} of {network}, {dataset}; the kept runs say {there}.")
    return found


def main() -> None:
    """Print, write, check or keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/results.md")
    parser.add_argument("--check", action="store_true", help="fail if docs/results.md or README.md say something else")
    parser.add_argument("--keep", type=Path, metavar="RUN", help="a run directory to keep the results of")
    parser.add_argument("--name", help="of what is kept; default: of the run directory")
    parser.add_argument("--source", default="", help="the name under which the source of a kept transfer is kept")
    args = parser.parse_args()
    if args.keep:
        keep(args.keep, KEPT / (args.name or args.keep.resolve().name), args.source)
    elif args.docs:
        PAGE.write_text(written(PAGE.read_text()))
    elif args.check:
        wrong = readme_disagrees()
        if written(PAGE.read_text()) != PAGE.read_text():
            wrong.append("docs/results.md has other tables than the kept results make; run scripts/results.py --docs.")
        sys.exit("\n".join(wrong) or 0)
    else:
        print("\n".join(made().values()))


if __name__ == "__main__":
    main()
