"""Table 2 and Figure 7: a search for winning tickets beside SNIP and GraSP, and one for early-bird tickets, in one run.

Each is a run of its own in a directory below, `imp/` and `early_bird/`, with the same networks, data and seeds; what
they measure, and what their tickets cost, is put together in results.csv above them.
"""

import json

from ml_collections import ConfigDict

from lotto_jax.data.sources import Dataset
from lotto_jax.experiments import at_initialization, build, costs, kept
from lotto_jax.experiments.run_directory import PARTS, RunDirectory, read_results, write_atomically
from lotto_jax.experiments.tickets import batch_shapes


def parts_of(config: ConfigDict) -> list[ConfigDict]:
    """The configurations of the runs that one of Table 2 is made of; `experiment` names the directory of each."""
    parts = [config.copy_and_resolve_references() for _ in PARTS]
    for part, name in zip(parts, PARTS, strict=True):
        part.experiment = name
    return parts


def check(config: ConfigDict) -> None:
    """Raise ValueError on the first field that makes no sense for a table of both."""
    imp = config.imp
    if len(imp.pruned) != 1:
        raise ValueError(f"config.imp.pruned is {tuple(imp.pruned)}; Table 2 takes one choice of components.")
    if imp.one_shot_sparsities or set(imp.arms) - {"winning", *at_initialization.SCORERS}:
        raise ValueError(
            f"config.imp.arms is {tuple(imp.arms)}, config.imp.one_shot_sparsities {tuple(imp.one_shot_sparsities)}; "
            "Table 2 has winning, snip and grasp, and no one-shot tickets."
        )
    if "dense" in config.early_bird.arms:
        raise ValueError("config.early_bird.arms holds 'dense', which Table 2 has from the other part; leave it out.")
    if config.checkpoint.keep_states != "all":
        raise ValueError("config.checkpoint.keep_states must be 'all': the costs in Table 2 are those of every round.")


def combine(config: ConfigDict, dataset: Dataset, directory: RunDirectory) -> None:
    """Write the results of both parts, as far as there are any, and the costs of the first into results.csv above."""
    imp = parts_of(config)[0]
    objective = build.objective(imp, dataset.image_shape, dataset.classes)
    with kept.opened(directory.path / "imp") as store:
        rows = list(costs.results(imp, objective, batch_shapes(imp, dataset), store))
    provenance: dict[str, dict] = {}
    for part in PARTS:
        file = directory.path / part / "metrics.json"
        for metric, entry in json.loads(file.read_text()).items() if file.exists() else ():
            other = provenance.setdefault(metric, entry)
            if any(entry[field] != other[field] for field in (entry.keys() & other.keys()) - {"classifier"}):
                raise ValueError(
                    f"{metric} was not measured alike in the parts of {directory.path}; "
                    f"`lotto-jax evaluate --workdir={directory.path} --metrics=... --force` measures it again in both."
                )
    write_atomically(directory.path / "metrics.json", json.dumps(provenance, indent=2) + "\n")
    directory.replace_results([*rows, *(r for part in PARTS for r in read_results(directory.path / part))])
