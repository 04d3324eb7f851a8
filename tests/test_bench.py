"""The program of the benchmarks: what it lists, prints and writes."""

import importlib
import json
import sys
from types import SimpleNamespace

import pytest

from scripts import bench
from scripts.benchmarks import structured
from scripts.benchmarks.common import Row

ROWS = [
    Row("step", 1.5, "ms", "a peer", 0.98, 1.0),
    Row("overhead", 0.01, "", "no mask", 0.01, 0.02, "lower"),
    Row("peer missing", None, "ms", "needs scripts/test.sh --parity"),
    Row("channels", 37632, ""),
]


def test_every_module_with_rows_is_listed():
    assert {"pruning", "train", "networks", "tickets", "structured"} <= set(bench.names())
    assert not {"common", "train_torch"} & set(bench.names())


@pytest.mark.parametrize(("row", "met"), list(zip(ROWS, (False, True, None, None), strict=True)))
def test_a_target_is_met_from_its_side_and_undecided_where_nothing_was_measured(row, met):
    assert row.met is met
    verdict = {True: "met", False: "MISSED", None: ""}[met]
    assert bench.line(row).endswith(verdict) and ("not measured" in bench.line(row)) == (row.value is None)


def test_rows_are_printed_and_written_as_json_lines(tmp_path, monkeypatch, capsys):
    found = importlib.import_module

    def fake(name, *args):
        return SimpleNamespace(run=lambda: iter(ROWS)) if name == "scripts.benchmarks.train" else found(name, *args)

    monkeypatch.setattr(importlib, "import_module", fake)
    monkeypatch.setattr(sys, "argv", ["bench.py", "train", "--json", str(tmp_path / "rows.json")])
    bench.main()
    printed = capsys.readouterr().out
    assert "MISSED" in printed and "not measured" in printed
    objects = [json.loads(line) for line in (tmp_path / "rows.json").read_text().splitlines()]
    assert [(o["name"], o["target"], o["met"]) for o in objects] == [
        ("step", 1.0, False),
        ("overhead", 0.02, True),
        ("peer missing", None, None),
        ("channels", None, None),
    ]
    assert set(objects[0]) >= {"name", "value", "unit", "peer", "ratio", "target", "met"}


def test_a_table_goes_between_its_lines_of_the_page_and_nowhere_else(tmp_path, monkeypatch, capsys):
    page = "# Speed\n<!-- bench other -->\nkept\n<!-- end -->\n<!-- bench train -->\nold\n<!-- end -->\nlast\n"
    (tmp_path / "speed.md").write_text(page)
    found = importlib.import_module

    def fake(name, *args):
        return SimpleNamespace(run=lambda: iter(ROWS)) if name == "scripts.benchmarks.train" else found(name, *args)

    monkeypatch.setattr(importlib, "import_module", fake)
    monkeypatch.setattr(bench, "DOCS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench.py", "train", "--docs"])
    bench.main()
    written = (tmp_path / "speed.md").read_text()
    assert (
        "| step | 1.5 ms | a peer | 0.98 | >= 1, missed |" in written
        and "| channels | 37,632 |" in written
        and "\nold\n" not in written
    )
    assert "kept" in written and written.startswith("# Speed") and written.endswith("<!-- end -->\nlast\n")


def test_rows_of_a_pruned_network_say_what_is_exact_and_what_is_comparable():
    keys = ("seconds", "groups", "channels", "params", "flops", "dense_flops", "groups_seconds", "error")
    found = dict.fromkeys([*keys, "dense_params", *(f"torch_{key}" for key in keys)], 2)
    found |= {f"same_{key}": 2 for key in ("groups", "params", "flops")} | {"removed": 5, "error": 2e-5}
    found |= {"same_removed": 4, "same_error": 2e-6, "torch_error": 0.1, "torch_error_with_counts": 3e-6}
    rows = {row.name: row for row in structured.rows("net", found)}
    assert rows["net: channels removed"].value == 5
    assert rows["net: outputs, against the masked network"].met is False
    assert rows["net: comparable groups, channels removed"].value == 4
    assert rows["net: comparable groups, outputs, against the masked network"].met is True
    assert rows["net: with the counts of its layer norms restored"].value == 3e-6
    del found["torch_error_with_counts"]
    whole = [row.name for row in structured.rows("net", {**found, "same_removed": 5, "torch_error": 1e-6})]
    assert not any("comparable" in name or "counts" in name for name in whole)
