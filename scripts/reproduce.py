"""Runs what the paper's tables and figures need: `python scripts/reproduce.py --scale=cpu|paper [--only=fig8]`.

It says what it will run and for how long, runs it in order, and writes one report, ROOT/report/report.html. The same
command goes on where it was interrupted; finished runs are left alone. `--only` takes table1, table2, fig1 to fig8 and
figa1 to figa8, several with commas. `--dry-run` says what would run and stops.

`--docs` writes the tables of configs/README.md and the page docs/figures.md, which come from the same list
(`lotto_jax/reports/paper.py`).
"""

import argparse
import ast
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lotto_jax import cli  # noqa: E402  (the repository root must be importable first)
from lotto_jax.reports import costs, page, paper  # noqa: E402
from lotto_jax.reports.settings import count  # noqa: E402
from lotto_jax.runs import finished  # noqa: E402
from lotto_jax.runs.results import RESULTS  # noqa: E402

EXAMPLES = {"mnist": 60_000, "cifar10": 50_000, "celeb_a": 162_770}  # in the training splits
DATASETS = {"mnist": "mnist", "cifar10": "cifar10", "celeba": "celeb_a"}
ONE_SHOT = (0.5, 0.75, 0.9, 0.95)
FAMILIES = {"AE": ("accuracy",), "VAE": ("frechet", "accuracy"), "GAN": ("frechet", "inception_score")}
ALSO = {  # what configurations are for that no table or figure shows by themselves
    "quickstart": "the idea, on bundled 8x8 digits",
    "resnet18_mnist": "the classifier behind Figure A.2 on MNIST",
    "resnet18_cifar10": "the classifier behind Figures A.2, A.3 and `fd_resnet18` on CIFAR-10",
    "resnet18_celeba": "the classifier behind Figures A.2, A.3 and `fd_resnet18` on CelebA",
}
README, FIGURES, COSTS = ROOT / "configs" / "README.md", ROOT / "docs" / "figures.md", ROOT / "docs" / "costs.md"


class Run(NamedTuple):
    """A run directory to make.

    Attributes:
      name: of the directory.
      source: FILE[:VARIANT].
      overrides: `--config.FIELD=VALUE`.
      shows: tables and figures that it is for.
      needs: names of runs that come before.
    """

    name: str
    source: str
    overrides: tuple[str, ...]
    shows: tuple[str, ...]
    needs: tuple[str, ...] = ()

    def command(self, root: Path) -> list[str]:
        """Arguments of `lotto-jax`."""
        return ["run", f"--config={self.source}", f"--workdir={root / self.name}", *self.overrides]


def artifacts() -> list[str]:
    """What `--only` takes, in the paper's order."""
    return ["table1", "table2", *(figure.name for figure in paper.FIGURES)]


def _artifact(name: str) -> str:
    """`figa2` of `a2`; what is no figure as it is."""
    return f"fig{name}" if f"fig{name}" in artifacts() else name


def _configs(artifact: str) -> list[tuple[str, str]]:
    """Configurations that a table or figure shows, with the kind of the panel."""
    if artifact == "table1":
        return [(row.config, "sparsity") for row in paper.TABLE1]
    if artifact == "table2":
        return [(paper.TABLE2_CONFIG, "methods")]
    figure = next(figure for figure in paper.FIGURES if figure.name == artifact)
    pairs: list[tuple[str, str]] = []
    for item in figure.items:
        pairs.append((item.config, "one_shot" if "one_shot" in item.arms else item.kind))
        if item.kind == "rewinding":
            pairs.append((item.config + paper.REWOUND, item.kind))
    return pairs


def plan(scale: str, only: Sequence[str], root: Path, data_dir: str = "") -> list[Run]:
    """The runs that tables and figures need, in an order in which they can be made.

    Args:
      scale: cpu or paper.
      only: of `artifacts`; all if empty.
      root: where run directories go.
      data_dir: of the datasets; empty for their usual place.
    """
    shows: dict[str, list[str]] = {}
    one_shot = {config for a in artifacts() for config, kind in _configs(a) if kind == "one_shot"}
    for artifact in only or artifacts():
        for config, _ in _configs(artifact):
            shows.setdefault(config, []).append(artifact)
    made: dict[str, Run] = {}

    def add(config: str, artifacts: Iterable[str], *more: str, suffix: str = "") -> str:
        bare, _, variant = config.partition(":")
        overrides, needs = list(more), []
        source = f"configs/{bare}.py" + (":cpu" if scale == "cpu" else f":{variant}" if variant else "")
        if variant and scale == "cpu":  # the variant :rewind0, of the variant :cpu
            overrides += ["--config.imp.rewind_step=0", "--config.imp.arms=('winning',)"]
        if config in one_shot and not cli.load_config(str(ROOT / source), []).imp.one_shot_sparsities:
            overrides.append(f"--config.imp.one_shot_sparsities={ONE_SHOT}")
        if names := _metrics(bare):
            classifier = add(f"resnet18_{_dataset(bare)}", artifacts)
            features = "classifier" if scale == "cpu" else "auto"
            overrides += [f"--config.metrics.names={names}", f"--config.metrics.features={features}"]
            overrides.append(f"--config.metrics.classifier={root / classifier}")
            needs.append(classifier)
        if bare.startswith("transfer_"):
            start, component = ("vae", "decoder") if bare.startswith("transfer_vae") else ("dcgan", "generator")
            pruned = f"--config.imp.pruned=('{component}',)"
            own = (pruned,) if scale == "cpu" else ()  # at the paper's scale the search prunes it among others
            source_run = add(f"{start}_cifar10", artifacts, *own, suffix=f"-{component}" if own else "")
            overrides.append(f"--config.transfer.source={root / source_run}")
            needs.append(source_run)
        if data_dir:
            overrides.append(f"--config.dataset.data_dir={data_dir}")
        name = config.replace(":", "-") + ("-cpu" if scale == "cpu" else "") + suffix
        shown = tuple(dict.fromkeys([*(made[name].shows if name in made else ()), *artifacts]))
        made[name] = Run(name, source, tuple(overrides), shown, tuple(needs))
        return name

    for config, own in shows.items():
        add(config, own)
    return _ordered(made)


def _ordered(made: dict[str, Run]) -> list[Run]:
    """Every run behind those that it needs."""
    done: dict[str, Run] = {}

    def visit(run: Run) -> None:
        for name in run.needs:
            visit(made[name])
        done.setdefault(run.name, run)

    for run in made.values():
        visit(run)
    return list(done.values())


def _dataset(config: str) -> str:
    return config.partition(":")[0].rpartition("_")[2]


def _metrics(config: str) -> tuple[str, ...]:
    """What is measured of a configuration's tickets, apart from its own losses."""
    row = next((row for row in paper.TABLE1 if row.config == config), None)
    if row is not None:
        return FAMILIES[row.family]
    return ("frechet",) if config == paper.TABLE2_CONFIG or config.startswith("transfer_") else ()


def ticket_steps(config: ConfigDict) -> int | None:
    """Steps of all tickets of a search; None of experiments whose tickets have steps of their own."""
    imp, train = config.imp, config.train
    examples = config.dataset.train_examples or EXAMPLES.get(config.dataset.name, 0)
    steps = examples // train.batch_size * train.epochs
    if config.experiment == "dense":
        return len(config.seeds) * steps
    if config.experiment not in ("imp", "transfer") or not examples:
        return None
    short = steps - imp.rewind_step  # tickets that start at the rewind step
    arms = sum(short if arm in ("winning", "random_pruned") else steps for arm in imp.arms)
    search = imp.rounds * len(imp.pruned) * arms + len(imp.one_shot_sparsities) * short
    return len(config.seeds) * (steps + search)


def on_one_chip() -> dict[str, float]:
    """Seconds of a ticket-step of the paper's configurations on one chip, where docs/costs.md knows them."""
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", COSTS.read_text(), re.MULTILINE)
    cells = {name: [cell.strip() for cell in rest.split("|")] for name, rest in rows}
    known = {name: own for name, own in cells.items() if own[4] != "unknown"}
    return {name: 3600 * float(own[4]) / int(own[0].replace(",", "")) for name, own in known.items()}


def measured_here(path: Path) -> float | None:
    """Seconds of a ticket-step of a run that was begun here; None before its first phase is done."""
    if not (path / RESULTS).exists():
        return None
    phases = costs.phases(page.source_of(path))
    steps = sum(phase.steps for phase in phases)
    return sum(phase.steps * phase.step_seconds for phase in phases) / steps if steps else None


def statement(runs: Sequence[Run], scale: str, root: Path) -> str:
    """What will run, and for how long."""
    known = on_one_chip() if scale == "paper" else {}
    lines, total, unknown, estimated = [], 0.0, 0, False
    for run in runs:
        config = _config(run)
        steps, network = ticket_steps(config), _network(run)
        rate = measured_here(root / run.name)
        estimated = estimated or (rate is None and network in known)
        rate = known.get(network) if rate is None else rate
        hours = steps * rate / 3600 if steps and rate else None
        work = f"{steps:,} ticket-steps" if steps else "ticket-steps depend on the search"
        time = "unknown time" if hours is None else f"{hours:.2g} h" if hours < 1 else f"{hours:,.1f} h"
        state = ", done" if finished.is_finished(root / run.name, config) else ""
        shows = ", ".join(run.shows[:4]) + (f" and {len(run.shows) - 4} more" if len(run.shows) > 4 else "")
        lines.append(f"  {run.name} ({shows}): {work}, {time}{state}")
        total, unknown = total + (hours or 0.0), unknown + (hours is None)
    said = [f"{total:,.1f} hours of training steps"] if total else []
    said += (
        ["by the compiler's estimate for one TPU v5e (docs/costs.md) where nothing is measured here"]
        if estimated
        else []
    )
    said += [f"and {count(unknown, 'run')} of unknown time"] if unknown else []
    if scale == "cpu":
        said.append("a variant :cpu is scaled for about half an hour on 2 cores")
    return "\n".join([f"{count(len(runs), 'run')} in {root}:", *lines, f"In all: {', '.join(said)}."])


def _network(run: Run) -> str:
    """The configuration of Table 1 whose steps a run has."""
    stem = Path(run.source.partition(":")[0]).stem
    return {"transfer_vae_to_dcgan_cifar10": "dcgan_cifar10", "transfer_dcgan_to_vae_cifar10": "vae_cifar10"}.get(
        stem, stem
    )


def _config(run: Run) -> ConfigDict:
    return cli.load_config(str(ROOT / run.source), list(run.overrides))


def missing_data(run: Run, data_dir: str) -> str:
    """The dataset that a run waits for; empty if it is there."""
    name = DATASETS.get(_dataset(Path(run.source.partition(":")[0]).stem), "")
    place = Path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    return name if name and not (place / name).is_dir() else ""


def execute(runs: Sequence[Run], root: Path, data_dir: str) -> int:
    """Run them one after the other; the exit status of the first that was interrupted, else 1 if one failed."""
    failed: dict[str, str] = {}
    for number, run in enumerate(runs, 1):
        head = f"[{number}/{len(runs)}] {run.name}"
        config = _config(run)
        if finished.is_finished(root / run.name, config):
            print(f"{head}: done before", flush=True)
            continue
        if lacking := missing_data(run, data_dir):
            failed[run.name] = f"the dataset {lacking} is not there (configs/README.md says how to prepare it)"
        elif lost := [name for name in run.needs if name in failed]:
            failed[run.name] = f"it needs {', '.join(lost)}"
        if run.name in failed:
            print(f"{head}: left out, {failed[run.name]}", flush=True)
            continue
        print(f"{head}: lotto-jax {shlex.join(run.command(root))}", flush=True)
        status = _child([sys.executable, "-m", "lotto_jax", *run.command(root)], root / f"{run.name}.log")
        if status in (130, 143):
            print("Interrupted; the state is saved, and the same command goes on.", file=sys.stderr)
            return status
        if status:
            failed[run.name] = f"it ended with status {status}, see {root / run.name}.log"
            print(f"{head}: {failed[run.name]}", file=sys.stderr, flush=True)
        else:
            finished.declare(root / run.name, config)
    return 1 if failed else 0


def _child(command: list[str], log: Path) -> int:
    """The status of a command whose output goes to a file; signals go on to it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as file:
        child = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        before = {
            s: signal.signal(s, lambda number, _: child.send_signal(number)) for s in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            return child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def readme() -> str:
    """The table of configs/README.md: every file of configs/, and what it is for."""
    lines = ["| file | what it is for | scale |", "|---|---|---|"]
    order = [row.config for row in paper.TABLE1]
    rank = lambda stem: order.index(stem) if stem in order else -1 if stem == "quickstart" else len(order)  # noqa: E731
    for file in sorted((ROOT / "configs").glob("*.py"), key=lambda file: (rank(file.stem), file.stem)):
        if "\ndef get_config(" not in file.read_text():
            continue
        config = cli.load_config(str(file), [])
        shown = ", ".join(paper.shown_in(file.stem)) or ALSO.get(file.stem) or _first_sentence(file)
        lines.append(f"| `{file.name}` | {shown} | {_scale(config)} |")
        if _has_rewind0(file):
            rewound = ", ".join(paper.shown_in(file.stem + paper.REWOUND))
            lines.append(
                f"| `{file.name}:rewind0` | {rewound} | as above, rewound to initialization, winning tickets only |"
            )
    return "\n".join(lines) + "\n"


def _first_sentence(file: Path) -> str:
    """Of a configuration that is not the paper's, what it says of itself."""
    told = ast.get_docstring(ast.parse(file.read_text())) or ""
    return " ".join(told.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")


def _has_rewind0(file: Path) -> bool:
    return "rewind0=" in file.read_text()


def _scale(config: ConfigDict) -> str:
    parts = [count(len(config.seeds), "seed"), count(config.train.epochs, "epoch")]
    if config.experiment in ("imp", "transfer", "table2"):
        parts.insert(1, f"{count(config.imp.rounds, 'round')} of {config.imp.fraction:.0%}")
    return ", ".join(parts)


def figures() -> str:
    """The page docs/figures.md."""
    lines = [
        "# The paper, figure by figure",
        "",
        "`python scripts/reproduce.py --docs` writes this page from `lotto_jax/reports/paper.py`, the list that the",
        "merged report and `scripts/reproduce.py` read, too.",
        "",
        "```bash",
        "python scripts/reproduce.py --scale=cpu --dry-run        # what would run",
        "python scripts/reproduce.py --scale=cpu --only=fig4      # the networks of Figure 4, for two CPU cores",
        "python scripts/reproduce.py --scale=paper                # all of it, as the paper has it",
        "lotto-jax report --workdir=A --workdir=B --out=DIR       # one report of runs that you have",
        "```",
        "",
        "`--paper` makes `lotto-jax report` write every figure as PDF. Configurations are files of `configs/`, each",
        "with a variant `:cpu`. Runs of CelebA wait for its data ([configs/README.md](../configs/README.md#datasets)).",
        "",
        "## Table 1",
        "",
        "`--only=table1`. Winning sparsities in the paper:",
        "",
        "| network | dataset | params | winning ticket | judged by | configuration |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r.name} | {r.dataset} | {r.params} | {r.sparsity:.1%} | {r.judged_by} | `{r.config}` |"
            for r in paper.TABLE1
        ),
        "",
        "## Table 2",
        "",
        f"`--only=table2`, configuration `{paper.TABLE2_CONFIG}`. In the paper, DCGAN:",
        "",
        "| method | FID | weights | FLOPs | seconds |",
        "|---|---|---|---|---|",
        *(f"| {m.name} | {m.fid} | {m.weights:,} | {m.flops:.3g} | {m.seconds:,.1f} |" for m in paper.TABLE2),
    ]
    for figure in paper.FIGURES:
        lines += ["", f"## Figure {figure.number}: {figure.title}", "", figure.says, "", f"`--only={figure.name}`:", ""]
        lines += ["| panel | configuration | shows |", "|---|---|---|"]
        for item in figure.items:
            config = f"`{item.config}`" + (f", `{item.config}{paper.REWOUND}`" if item.kind == "rewinding" else "")
            lines.append(f"| {item.title} | {config} | {_shows(item)} |")
    return "\n".join(lines) + "\n"


def _shows(item: paper.Item) -> str:
    names = {"fid": "FID", "fd_": "`fd_*`", "is_": "`is_*`"}
    metrics = " or ".join(names.get(metric, f"`{metric}`") for metric in item.metrics)
    arms = ", ".join(f"`{arm}`" for arm in item.arms)
    words: dict[str, str] = {
        "sparsity": f"{metrics} against sparsity, arms {arms}",
        "rewinding": f"{metrics} against sparsity, rewound to step 10 and to initialization",
        "early_stopping": "early-stopping step of the training loss against sparsity",
        "pictures": "images by sparsity, winning and random tickets",
        "methods": "quality against FLOPs; FLOPs and training time against compression",
    }
    return words[item.kind]


def write_docs() -> None:
    """Write what is generated of the documents."""
    marked = re.sub(
        r"(<!-- configs -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{readme()}{m[2]}", README.read_text(), flags=re.S
    )
    README.write_text(marked)
    FIGURES.write_text(figures())


def main() -> None:
    """State, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=("cpu", "paper"))
    parser.add_argument("--only", default="", metavar="NAMES", help=", ".join(artifacts()))
    parser.add_argument("--workdir", type=Path, metavar="ROOT", help="default: runs/reproduce-SCALE")
    parser.add_argument("--data-dir", default="", metavar="DIR", help="of the TFDS datasets")
    parser.add_argument("--dry-run", action="store_true", help="say what would run")
    parser.add_argument("--docs", action="store_true", help="write configs/README.md and docs/figures.md")
    args: Any = parser.parse_args()
    if args.docs:
        write_docs()
        return
    if args.scale is None:
        parser.error("--scale is missing; it takes cpu or paper")
    only = [_artifact(name) for name in args.only.lower().replace(".", "").split(",") if name]
    if unknown := [name for name in only if name not in artifacts()]:
        parser.error(f"--only is {unknown[0]!r}; it takes {', '.join(artifacts())}")
    root = (args.workdir or ROOT / "runs" / f"reproduce-{args.scale}").resolve()
    runs = plan(args.scale, only, root, args.data_dir)
    print(statement(runs, args.scale, root), flush=True)
    if args.dry_run:
        return
    status = execute(runs, root, args.data_dir)
    if status in (130, 143):
        sys.exit(status)
    from lotto_jax.experiments.report import merge

    try:
        print(merge([root], root / "report"))
    except ValueError as error:
        sys.exit(f"No report: {error}")
    sys.exit(status)


if __name__ == "__main__":
    main()
