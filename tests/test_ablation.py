"""The page of the ablation map: the numbers of finished cells, and that a part of the grid is no result."""

import json

import numpy as np
import pytest
from PIL import Image

from configs import ablation_linear_ae_mnist as grid
from lotto_jax.runs import analysis, results
from scripts import ablation


@pytest.fixture
def base(tmp_path):
    """The base cell, finished: winning tickets stay at the dense loss for five rounds."""
    path = tmp_path / grid.name_of(grid.BASE)
    path.mkdir()
    fields = {"experiment": "imp", "model": "linear_autoencoder", "dataset": "mnist", "step": 9}
    rows = []
    for seed in range(5):
        for number in range(8):
            sparsity = 1 - 0.64**number
            arms = (
                {"winning": 1.0 if number < 6 else 2.0, "random": 1.0 if number < 4 else 3.0}
                if number
                else {"dense": 1.0}
            )
            for arm, loss in arms.items():
                own = {"pruned": "both", "round": number, "sparsity": sparsity, "arm": arm, "seed": seed}
                rows.append(results.Result(**fields, **own, metric=ablation.METRIC, value=loss + 0.01 * seed))
    results.add(path, rows)
    dead = [("snapshot", 0, 0.1), ("dense", 0, 0.2), ("winning", 5, 0.3), ("winning", 4, 0.9)]
    found = [
        analysis.Row("dead_share", "both", number, 0.0, arm, str(seed), "all", value + 0.02 * seed)
        for arm, number, value in dead
        for seed in (0, 1)
    ]
    analysis.replace(path, ["dead_share"], found)
    (path / "progress.json").write_text(json.dumps({"done": 8, "phases": 8, "last": "round 7 of 7"}))
    return path


def test_a_cell_has_the_numbers_of_its_run(base, tmp_path):
    cell = ablation.read(tmp_path, grid.BASE)
    assert cell.winning == pytest.approx(1 - 0.64**5, abs=1e-6) and cell.dead == pytest.approx(0.21)
    # By the stricter rule the random arm has to be worse at the sparsity itself, not below it.
    assert cell.strict == cell.winning
    assert cell.columns[:6] == ["relu", "none", "pytorch", "1e-3", "10", "10"]
    assert cell.columns[6:8] == ["89.3%", "89.3%"] and cell.columns[9:] == ["1.00", "11.0%", "21.0%", "31.0%"]


def test_the_page_says_how_much_of_the_grid_is_done(base, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "PAGE", tmp_path / "ablation.md")
    monkeypatch.setattr(ablation, "PICTURE", tmp_path / "assets" / "ablation.png")
    other = tmp_path / grid.name_of(grid.cells()[1])
    other.mkdir()
    (other / "progress.json").write_text(json.dumps({"done": 3, "phases": 8, "last": "round 2 of 7"}))
    ablation.write(tmp_path)
    page = (tmp_path / "ablation.md").read_text()
    assert "1 of the 65 declared cells are finished" in page and "a part of the grid, no result" in page
    assert page.count("\n| relu | none | pytorch | 1e-3 | 10 | 10 | 89.3% |") == 1 and "| none | none |" not in page
    assert np.asarray(Image.open(tmp_path / "assets" / "ablation.png").convert("L")).std() > 5
    assert "the whole grid" in ablation.page([], 0)
