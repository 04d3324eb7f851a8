"""What the whole paper costs on TPUs: `python scripts/costs.py [--docs]`.

For every network of Table 1 and the searches of Table 2, `lotto-jax preflight` compiles a step for 1, 8 and 256 chips.
Needs the compilers (`pip install -c constraints.txt -e ".[pods]"`), no data and no TPU. `--docs` writes the tables into
docs/costs.md, between the lines `<!-- costs -->` and `<!-- end -->`. Answers are kept in .cache/costs.json, by
the text of what is compiled, so that the command can be interrupted, and no step is compiled twice.
"""

import argparse
import hashlib
import importlib.metadata
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PAGE, CACHE = ROOT / "docs" / "costs.md", ROOT / ".cache" / "costs.json"
sys.path.insert(0, str(ROOT))

from lotto_jax.training import topologies  # noqa: E402  (the repository root must be importable first)

TOPOLOGIES = {1: "v5e:1x1", 8: "v5e:2x4", 256: "v5e:16x16"}
EXAMPLES = {"mnist": 60_000, "cifar10": 50_000, "celeb_a": 162_770}  # in the training splits
PEAK_FLOPS = 197e12  # a second, of a v5e in bfloat16, by Google Cloud's documentation
SLICE = 8  # chips that one network gets where all of them share a pod


class Answer(NamedTuple):
    """What a run takes on a topology.

    Attributes:
      ticket_steps: of the whole run.
      flops: of a step of one ticket.
      seconds: of that step on one chip; None where the compiler has no estimate, or no ticket has one chip.
      hours: of training; None where the compiler has no estimate.
    """

    ticket_steps: int
    flops: int
    seconds: float | None
    hours: float | None


def reports(source: str, topology: str, answers: dict[str, float | None]) -> list[Answer]:
    """Of a configuration on a topology: of its run, or of both runs of Table 2.

    Steps are compiled once, whichever configurations and topologies have them: `answers` has what the compiler
    estimated of a program's text, and is kept on disk.
    """
    import jax  # once the environment is set

    from lotto_jax.cli import load_config
    from lotto_jax.experiments import costs, preflight, programs

    config = load_config(source, [])
    config.dataset.train_examples = EXAMPLES[config.dataset.name]
    config.metrics.names = ()  # they need no training
    versions = [importlib.metadata.version(name) for name in ("jax", "libtpu")]
    found, devices = [], topologies.of(topology)
    with preflight.planned(config, devices) as runs:
        for run in runs:
            seconds: dict[int, float | None] = {}
            for program in (program for program in programs.of(run) if program.name == "step"):
                lowered = program.lower()
                text = f"{lowered.as_text()} {devices.devices[0].device_kind} {versions}"
                key = hashlib.sha256(text.encode()).hexdigest()[:16]
                if key not in answers:
                    answers[key] = preflight.estimated_seconds(lowered.compile())
                    CACHE.parent.mkdir(exist_ok=True)
                    CACHE.write_text(json.dumps(answers))
                seconds[program.split] = answers[key]
            places = {phase.tickets: run.place_tickets(run.objective, phase.tickets) for phase in run.phases}
            state = jax.eval_shape(run.objective.init, jax.random.key(0))
            flops = costs.step_flops(run.objective, state, run.feed.batch)
            hours = preflight.training_hours(run, places, seconds)
            found.append(Answer(sum(p.work for p in run.phases), flops, seconds.get(1), hours))
    return found


def known(value: float | None) -> float:
    """An estimate; NaN where the compiler has none."""
    return math.nan if value is None else value


def shown(value: float) -> str:
    """Three digits, or all before the point."""
    return "unknown" if math.isnan(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def tables(sources: list[str]) -> str:
    """The networks, and what all of them take."""
    answers = json.loads(CACHE.read_text()) if CACHE.exists() else {}
    lines = [
        "| configuration | ticket-steps | GFLOP a step | ms a step | of the peak | hours on 1 chip | 8 chips | 256 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    hours: dict[int, list[float]] = {chips: [] for chips in TOPOLOGIES}
    for source in sources:
        found = {chips: reports(source, topology, answers) for chips, topology in TOPOLOGIES.items()}
        steps, flops, seconds = sum(one.ticket_steps for one in found[1]), found[1][0].flops, known(found[1][0].seconds)
        for chips, own in found.items():
            hours[chips].append(sum(known(one.hours) for one in own))
        cells = [
            f"`{Path(source).stem}`",
            f"{steps:,}",
            shown(flops / 1e9),
            shown(1e3 * seconds),
            "unknown" if math.isnan(seconds) else f"{flops / seconds / PEAK_FLOPS:.1%}",
            *(shown(hours[chips][-1]) for chips in TOPOLOGIES),
        ]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    sums = {chips: float(np.nansum(own)) for chips, own in hours.items()}
    longest = float(np.nanmax(hours[SLICE]))
    unknown = [f"`{Path(s).stem}`" for s, h in zip(sources, hours[SLICE], strict=True) if math.isnan(h)]
    without = f" without {', '.join(unknown)}" if unknown else ""
    lines += [
        "",
        f"| the whole paper{without} | hours | chip-hours |",
        "|---|---|---|",
        *(
            f"| {n} chip{'s' if n > 1 else ''}, one after the other | {shown(sums[n])} | {shown(n * sums[n])} |"
            for n in TOPOLOGIES
        ),
        f"| {len(sources)} x {SLICE} chips, all at once | {shown(longest)} | {shown(SLICE * sums[SLICE])} |",
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/costs.md")
    args = parser.parse_args()
    os.environ.update(topologies.environment(TOPOLOGIES[1]))
    from lotto_jax.experiments import sweep

    text = tables([*sweep.read(ROOT / "configs" / "table1.txt"), "configs/table2_dcgan_cifar10.py"])
    if args.docs:
        page = PAGE.read_text()
        PAGE.write_text(
            re.sub(r"(<!-- costs -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{text}\n{m[2]}", page, flags=re.S)
        )
    else:
        print(text)


if __name__ == "__main__":
    main()
