"""The ablation map of the linear autoencoder on MNIST: runs the grid that configs/ablation_linear_ae_mnist.py declares.

python scripts/ablation.py --workdir=DIR [--data_dir=DIR] [--cells=N]    run cells in order, or go on
python scripts/ablation.py --workdir=DIR --write    docs/ablation.md and its picture, of what is done

Each cell is a run in DIR/CELL, with `lotto-jax analyse --only=dead_units`; --cells=N stops after the first N of them.
"""

import argparse
import math
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from configs import ablation_linear_ae_mnist as grid  # noqa: E402
from lotto_jax.analysis import ALL  # noqa: E402
from lotto_jax.experiments.analyse import analyse  # noqa: E402
from lotto_jax.experiments.run import run  # noqa: E402
from lotto_jax.experiments.sharing import share_dense  # noqa: E402
from lotto_jax.reports import summary  # noqa: E402
from lotto_jax.runs import analysis, results  # noqa: E402
from lotto_jax.runs.directory import read_progress  # noqa: E402
from lotto_jax.training.preemption import Preempted, Preemption  # noqa: E402

PAGE, PICTURE = ROOT / "docs" / "ablation.md", ROOT / ".assets" / "ablation_linear_ae_mnist.png"
METRIC = "reconstruction_loss"
HEADER = (*grid.FACTORS, "winning_sparsity", "strict", "dense", "winning / dense at 89.3 %")
HEADER += ("dead at the snapshot", "dead: dense", "dead: winning at 89.3 %")
PAPER_ROUND = 5  # of 36 %: the paper's round 10
TEXT = """\
# Ablation of the MNIST row

The paper reports winning tickets of the linear autoencoder on MNIST up to 89.2 % (Table 1); our row has 73.8 %
([results.md](results.md#linear-autoencoder-on-mnist)). The paper states neither activations, initialization, learning
rate, epochs nor the rewind step of this network. `configs/ablation_linear_ae_mnist.py` declares a grid of these
factors and the order in which its cells run; it was written before any of them ran. This page and its picture are
written by a command, of the cells that are finished:

```bash
python scripts/ablation.py --workdir=runs/ablation --data_dir=/data/tfds     # runs cells in order, resumable
python scripts/ablation.py --workdir=runs/ablation --write
```

{state}

Every cell has 5 seeds and 7 rounds of 36 %, which are two of the paper's rounds each, up to 95.6 %. `winning_sparsity`
and its stricter form are defined in [run_directory.md](run_directory.md#winning_sparsity); where they are 95.6 %, the
last round, a longer search may find more. Losses are means of squared errors a pixel on the test split. Dead units are
shares of the bottleneck's units that answer to no test image ([analysis.md](analysis.md)), means over seeds; without a
ReLU there are none.
"""


class Cell(NamedTuple):
    """What a finished cell found: texts of its columns in the table, and the numbers of the picture."""

    name: str
    columns: list[str]
    winning: float
    strict: float
    dead: float


def finished(path: Path) -> bool:
    """Whether a cell is done, its analysis too."""
    progress = read_progress(path) if path.exists() else None
    return progress is not None and progress.done == progress.phases and (path / analysis.ANALYSIS).exists()


def run_cells(workdir: Path, data_dir: str, count: int) -> None:
    """Run the first `count` cells (0: all) that are not done."""
    preemption, began = Preemption().install(), time.monotonic()
    for number, cell in enumerate(grid.cells()[: count or None], 1):
        name = grid.name_of(cell)
        path = workdir / name
        if finished(path):
            continue
        config = grid.get_config(name).unlock()
        config.dataset.data_dir = data_dir
        config.lock()
        own = dict(zip(grid.FACTORS, cell, strict=True)) | {"rewind_step": grid.FACTORS["rewind_step"][0]}
        dense = workdir / grid.name_of(tuple(own.values()))
        if dense != path and finished(dense):
            share_dense(dense, config, path)
        run(config, path, preemption)
        analyse(path, ["dead_units"])
        print(f"{number} of {len(grid.cells())}, {name}: done after {time.monotonic() - began:.0f} s", flush=True)


def _of(rows: list[analysis.Row], arm: str, number: int) -> float:
    values = [r.value for r in rows if (r.quantity, r.layer, r.arm, r.round) == ("dead_share", ALL, arm, number)]
    return statistics.fmean(values) if values else math.nan


def read(workdir: Path, cell: tuple) -> Cell:
    """What a finished cell found."""
    path = workdir / grid.name_of(cell)
    points, rows = summary.points(results.read(path), METRIC), analysis.read(path)
    wins = [judge(points, "lower", "both") for judge in (summary.winning, summary.strictly_winning)]
    found = [win.sparsity if win is not None and win.sparsity is not None else math.nan for win in wins]
    dense = next(p for p in points if p.arm == "dense")
    ticket = next(p for p in points if (p.arm, p.round) == ("winning", PAPER_ROUND))
    dead = [_of(rows, arm, number) for arm, number in (("snapshot", 0), ("dense", 0), ("winning", PAPER_ROUND))]
    share = lambda x: "-" if math.isnan(x) else f"{x:.1%}"  # noqa: E731
    columns = [*map(str, cell), *(("none" if math.isnan(x) else f"{x:.1%}") for x in found), summary.cell(dense)]
    columns += [f"{ticket.mean / dense.mean:.2f}", *map(share, dead)]
    return Cell(grid.name_of(cell), columns, found[0], found[1], dead[1])


def draw(cells: list[Cell], path: Path) -> None:
    """Winning sparsities and dead units, a line a cell."""
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(cells)))
    axes = figure.subplots()
    places = range(len(cells), 0, -1)
    axes.barh(places, [0 if math.isnan(c.dead) else 100 * c.dead for c in cells], color="0.85", label="dead units (%)")
    axes.scatter([100 * c.winning for c in cells], places, color="tab:green", label="winning_sparsity", zorder=3)
    strict = [100 * c.strict for c in cells]
    axes.scatter(strict, places, marker="|", s=160, color="black", label="strict_winning_sparsity", zorder=4)
    axes.axvline(89.2, color="tab:red", linestyle="--", linewidth=1, label="the paper: 89.2 %")
    axes.set_yticks(places, [c.name.replace(",", ", ") for c in cells], fontsize=8)
    axes.set(xlim=(0, 100), xlabel="%", title=", ".join(grid.FACTORS).replace("_", " "))
    axes.title.set_fontsize(9)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def page(done: list[Cell], declared: int) -> str:
    """The page as Markdown."""
    rest = ", the whole grid." if len(done) == declared else "; the others wait. This is a part of the grid, no result."
    text = TEXT.format(state=f"**{len(done)} of the {declared} declared cells are finished**{rest}")
    if not done:
        return text
    text += f"\n![Winning sparsity and dead units of every finished cell](../.assets/{PICTURE.name})\n"
    lines = [list(HEADER), ["---"] * len(HEADER), *(cell.columns for cell in done)]
    return text + "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def write(workdir: Path) -> None:
    """Write the page and the picture of the cells that are done."""
    done = [read(workdir, cell) for cell in grid.cells() if finished(workdir / grid.name_of(cell))]
    if done:
        draw(done, PICTURE)
    PAGE.write_text(page(done, len(grid.cells())))
    print(f"{len(done)} of {len(grid.cells())} cells are done; wrote {PAGE}")


def main() -> None:
    """Run cells, or write what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--data_dir", default="", help="of TFDS datasets (default: $TFDS_DATA_DIR)")
    parser.add_argument("--cells", type=int, default=0, help="only the first so many; default: all")
    parser.add_argument("--write", action="store_true", help="write the page and the picture, run nothing")
    args = parser.parse_args()
    if args.write:
        write(args.workdir)
    else:
        try:
            run_cells(args.workdir, args.data_dir, args.cells)
        except Preempted:
            sys.exit("Preempted; the state is saved, and the same command goes on.")


if __name__ == "__main__":
    main()
