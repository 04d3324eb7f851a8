"""Benchmarks against named peers: `python scripts/bench.py NAME... [--json PATH]`.

Each NAME is a module of scripts/benchmarks. Rows that need PyTorch use .venv-parity, which
`scripts/test.sh --parity` makes; without it those rows say so. `--docs` writes the rows of a NAME into the page of
docs/ that has the lines `<!-- bench NAME -->` and `<!-- end -->`, between them.
"""

import argparse
import importlib
import json
import os
import platform
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT))

from scripts.benchmarks.common import Row  # noqa: E402  (the repository root must be importable first)


def names() -> list[str]:
    """Every benchmark: the modules of scripts/benchmarks that define `run`."""
    paths = sorted((ROOT / "scripts" / "benchmarks").glob("*.py"))
    return [path.stem for path in paths if "\ndef run(" in path.read_text()]


def amount(row: Row, digits: int) -> str:
    """The value of a row with its unit; counts in full."""
    if row.value is None:
        return "not measured"
    number = f"{row.value:,}" if isinstance(row.value, int) else f"{row.value:,.{digits}g}"
    return f"{number} {row.unit}".rstrip()


def line(row: Row) -> str:
    """One row of the printed table."""
    value = amount(row, 4)
    ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
    sign = ">=" if row.better == "higher" else "<="
    target = "" if row.target is None else f"{sign} {row.target:g}"
    verdict = {True: "met", False: "MISSED", None: ""}[row.met]
    return f"{row.name:58} {value:>20}  {row.peer:42} {ratio:>8} {target:>9}  {verdict}".rstrip()


def markdown(rows: list[Row], where: str) -> str:
    """Rows as a table of the documentation, under a line that says where they were measured."""
    lines = [
        f"Measured with {where}:",
        "",
        "| measurement | value | against | ratio | target |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        missed = ", missed" if row.met is False else ""
        cells = [
            row.name.strip(),
            amount(row, 3),
            row.peer,
            "" if row.ratio is None else f"{row.ratio:.3g}",
            "" if row.target is None else f"{'>=' if row.better == 'higher' else '<='} {row.target:g}{missed}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def inserted(page: str, name: str, table: str) -> str:
    """A page with the table of a benchmark in place of what is between its lines there."""
    return re.sub(rf"(<!-- bench {name} -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{table}\n{m[2]}", page, flags=re.S)


def main() -> None:
    """Run the named benchmarks and print their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=[*names(), "all"], metavar="NAME", help=", ".join(names()))
    parser.add_argument("--json", type=Path, help="also write one JSON object a line to this file")
    parser.add_argument("--docs", action="store_true", help="also write the table into its page of docs/")
    parser.add_argument("--sizes", help="pruning: numbers of scores in millions, as 6.6,100,1000; default 6.6")
    args = parser.parse_args()
    chosen = names() if "all" in args.names else args.names

    import jax

    where = f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {os.cpu_count()} cores, {platform.machine()}"
    print(where)
    print(f"{'measurement':58} {'value':>20}  {'against':42} {'ratio':>8} {'target':>9}")
    rows: list[Row] = []
    for name in chosen:
        own: list[Row] = []
        benchmark = importlib.import_module(f"scripts.benchmarks.{name}")
        sizes = [float(size) for size in args.sizes.split(",")] if args.sizes and name == "pruning" else None
        for row in benchmark.run(sizes) if sizes else benchmark.run():
            print(line(row), flush=True)
            own.append(row)
        rows += own
        if args.docs:
            for page in DOCS.glob("*.md"):
                page.write_text(inserted(page.read_text(), name, markdown(own, where)))
    if args.json:
        objects = [{**row._asdict(), "met": row.met} for row in rows]
        args.json.write_text("".join(json.dumps(o) + "\n" for o in objects))


if __name__ == "__main__":
    main()
