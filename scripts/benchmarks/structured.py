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

    def row(what: str, value: float, peer: str = "") -> Row:
        return Row(f"{name}: {what}", value, "", peer)

    def exact(what: str, error: float) -> Row:
        return Row(f"{name}: {what}", error, "", "", error, 1e-5, "lower")

    seconds = found["seconds"]
    for what, key in (("graph", "torch_seconds"), ("graph and its groups", "torch_groups_seconds")):
        peer = f"torch-pruning's {what}, {found[key]:.3g} CPU s"
        yield Row(f"{name}: axis_groups", seconds, "CPU s", peer, found[key] / seconds, 1)
    groups, channels, params = (int(found[f"torch_{key}"]) for key in ("groups", "channels", "params"))
    yield row("groups", found["groups"], f"torch-pruning: {groups}, {int(found['same_groups'])} comparable")
    yield row("channels of groups", found["channels"], f"torch-pruning: {channels:,}")
    yield row("params", found["dense_params"])
    yield row("GFLOPs", found["dense_flops"] / 1e9, f"torch-pruning counts {found['torch_dense_flops'] / 1e9:.3g}")
    where = ""
    if found["removed"] != found["same_removed"]:
        yield row("channels removed", found["removed"])
        yield row("params left", found["params"])
        yield row("GFLOPs left", found["flops"] / 1e9)
        yield exact("outputs, against the masked network", found["error"])
        where = "comparable groups, "
    yield row(f"{where}channels removed", found["same_removed"])
    yield row(f"{where}params left", found["same_params"], f"torch-pruning: {params:,}")
    counted = f"torch-pruning counts {found['torch_flops'] / 1e9:.3g}"
    yield row(f"{where}GFLOPs left", found["same_flops"] / 1e9, counted)
    yield exact(f"{where}outputs, against the masked network", found["same_error"])
    yield row("torch-pruning's outputs, against the same", found["torch_error"])
    if found["torch_error"] > 1e-5:
        yield row("with the counts of its layer norms restored", found["torch_error_with_counts"])
