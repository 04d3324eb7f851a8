"""The README: its programs run as they stand, its links lead somewhere, and it is short."""

import csv
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "configs" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(heading):
    """The programs of a section, in order."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_it_has_at_most_150_lines():
    assert len(README.splitlines()) <= 150


def test_your_own_network_and_metric_run(tmp_path):
    programs = blocks("Your own network, data and metric")
    assert [program.splitlines()[0] for program in programs] == ["# my_nets.py", "# my_config.py"]
    lines = [line for program in programs for line in program.splitlines()[1:] if line]
    assert len(lines) <= 25
    for program in programs:
        (tmp_path / program.splitlines()[0].removeprefix("# ")).write_text(program)
    (command,) = re.findall(r"^`lotto-jax (run --config=my_config.py [^`]+)`", README, re.MULTILINE)
    arguments = command.split()
    small = ["--config.train.epochs=1", "--config.imp.rounds=1", "--config.imp.rewind_step=2", "--config.seeds=(0, 1)"]
    result = subprocess.run(
        [sys.executable, "-c", "from lotto_jax.cli import main; main()", *arguments, *small],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=250,
    )
    assert result.returncode == 0, result.stderr
    with open(tmp_path / "runs" / "mine" / "results.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "psnr"]
    assert {(row["arm"], row["seed"]) for row in rows} == {(a, s) for a in ("dense", "winning", "random") for s in "01"}
    assert all(0 < float(row["value"]) < 60 for row in rows)


def test_the_program_of_the_library_prints_its_sparsities(tmp_path, capsys):
    (program,) = blocks("Use the library")
    (tmp_path / "program.py").write_text(program)
    with jax.numpy_rank_promotion("allow"):  # as it is outside of these tests
        names = runpy.run_path(str(tmp_path / "program.py"))
    sparsities = [float(x) for x in re.findall(r"sparsity (\d\.\d{4}), loss \d", capsys.readouterr().out)]
    left, expected = 2 * 16 * 64, []
    for _ in range(5):
        expected.append(round(1 - left / (2 * 16 * 64), 4))
        left -= round(0.2 * left)
    assert sparsities == pytest.approx(expected, abs=1e-4) and len(sparsities) == 5
    assert float(names["pruning"].sparsity(names["at_once"])) == pytest.approx(0.9, abs=1e-3)
    assert names["only_out"]["in"]["w"].ndim == 0 and names["only_out"]["out"]["w"].shape == (64, 16)


def anchors(text):
    """What a link into a document can end with, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", path.read_text())
    for link in links:
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_every_file_that_the_documents_name_is_there():
    """Paths in backticks: `lotto_jax/config.py`, `configs/linear_ae_mnist.py:cpu --config...`."""
    named = {
        name
        for path in DOCUMENTS
        for name in re.findall(r"`((?:lotto_jax|configs|scripts)/[\w/]+\.(?:py|sh))", path.read_text())
    }
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
