"""The programs of docs/examples, each in a process of its own: they run, are short, and their networks still work."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_makes_a_network_sparse_that_still_works(path):
    assert len([line for line in path.read_text().splitlines() if line.strip()]) < 40
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, path], env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    found = {name: float(value) for name, value in re.findall(r"(\w+) ([\d.]+)", done.stdout)}
    assert found.get("sparsity", 0.5) >= 0.5 and found.get("channels", 32) == 32
    assert found.get("accuracy", 1) > 0.85 and found.get("loss", 0) < 0.05


def test_the_page_shows_all_of_them():
    page = (ROOT / "docs" / "examples.md").read_text()
    assert re.findall(r'--8<-- "docs/examples/(\w+)\.py"', page) == [path.stem for path in EXAMPLES]
