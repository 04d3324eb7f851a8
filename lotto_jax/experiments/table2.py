"""Table 2 and Figure 7: a search for winning tickets beside SNIP and GraSP, and one for early-bird tickets, in one run.

Each is a run of its own in a directory below, `imp/` and `early_bird/`, with the same networks, data and seeds; what
they measure, and what their tickets cost, is put together in results.csv above them.
"""

from ml_collections import ConfigDict

from lotto_jax.data.sources import Dataset
from lotto_jax.experiments import build, costs, kept
from lotto_jax.experiments.run_directory import RunDirectory, read_results
from lotto_jax.experiments.tickets import batch_shapes

PARTS = ("imp", "early_bird")


def parts_of(config: ConfigDict) -> list[ConfigDict]:
    """The configurations of the runs that one of Table 2 is made of; `experiment` names the directory of each."""
    parts = [config.copy_and_resolve_references() for _ in PARTS]
    for part, name in zip(parts, PARTS, strict=True):
        part.experiment = name
    return parts


def combine(config: ConfigDict, dataset: Dataset, directory: RunDirectory) -> None:
    """Write the results of both parts, and the costs of the first, into results.csv above them.

    The dense network is that of the first.
    """
    imp = parts_of(config)[0]
    objective = build.objective(imp, dataset.image_shape, dataset.classes)
    with kept.opened(directory.path / "imp") as store:
        directory.add_results(costs.results(imp, objective, batch_shapes(imp, dataset), store))
    for part in PARTS:
        rows = read_results(directory.path / part)
        directory.add_results(r for r in rows if part == "imp" or r.arm != "dense")
