"""Structured pruning of networks that people use, against torch-pruning: groups, time, what is left, and outputs.

All of it runs in .venv-parity (structured_torch.py), where both libraries are. A quarter of each group's channels goes,
those of least magnitude.
"""

from collections.abc import Iterator

from scripts.benchmarks.common import Row, ask_torch
from scripts.benchmarks.vision_networks import NETWORKS


def run() -> Iterator[Row]:
    """Rows of each network."""
    for name in NETWORKS:
        found = ask_torch("structured_torch.py", name)
        if found is None:
            yield Row(f"{name}: axis_groups", None, "s", "needs scripts/test.sh --parity")
        else:
            yield from rows(name, found)


def rows(name: str, found: dict[str, float]) -> Iterator[Row]:
    """The rows of one network; `found` is of `structured_torch.compare`."""
    seconds, theirs, listed = found["seconds"], found["torch_seconds"], found["torch_groups_seconds"]
    yield Row(
        f"{name}: axis_groups", seconds, "CPU s", f"torch-pruning's graph, {theirs:.3g} CPU s", theirs / seconds, 1
    )
    yield Row("  the same", seconds, "CPU s", f"graph and its groups, {listed:.3g} CPU s", listed / seconds, 1)
    groups, channels = (int(found[f"torch_{key}"]) for key in ("groups", "channels"))
    yield Row("  groups", found["groups"], "", f"torch-pruning: {groups}, {int(found['same_groups'])} comparable")
    yield Row("  channels of groups", found["channels"], "", f"torch-pruning: {channels:,}")
    yield Row("  params", found["dense_params"], "")
    gflops = found["torch_dense_flops"] / 1e9
    yield Row("  GFLOPs of products", found["dense_flops"] / 1e9, "", f"torch-pruning counts {gflops:.4g}")
    whole = found["removed"] == found["same_removed"]
    if not whole:
        yield Row("  channels removed of all groups", found["removed"], "")
        yield Row("  params left", found["params"], "")
        yield Row("  GFLOPs left", found["flops"] / 1e9, "")
        yield Row("  outputs, against the masked network", found["error"], "", "", found["error"], 1e-5, "lower")
    where = "all groups" if whole else "comparable groups"
    params, gflops = int(found["torch_params"]), found["torch_flops"] / 1e9
    yield Row(f"  channels removed of {where}", found["same_removed"], "")
    yield Row("  params left", found["same_params"], "", f"torch-pruning: {params:,}")
    yield Row("  GFLOPs left", found["same_flops"] / 1e9, "", f"torch-pruning counts {gflops:.4g}")
    error = found["same_error"]
    yield Row("  outputs, against the masked network", error, "", "", error, 1e-5, "lower")
    yield Row("  torch-pruning's outputs, against the same", found["torch_error"], "")
    if found["torch_error"] > 1e-5:
        yield Row("  with the counts of its layer norms restored", found["torch_error_with_counts"], "")
