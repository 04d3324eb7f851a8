"""The report of a real search: one HTML file, and figures that show what was measured."""

import re

import numpy as np
import pytest
from PIL import Image

from lotto_jax.experiments.report import write
from lotto_jax.experiments.run import run
from lotto_jax.reports import figures, summary
from lotto_jax.runs.results import Result
from tests import tiny


def test_a_report_is_one_file_with_table_figures_and_configuration(tmp_path):
    run(tiny.config(imp__one_shot_sparsities=(0.5,)), tmp_path / "run")
    text = write(tmp_path / "run")
    assert "winning" in text and "one_shot" in text and "36.0" in text
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4  # against sparsity, curves, early stopping, images
    assert "Early stopping by training loss" in text and "95 % interval of the mean" in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing outside the file
    assert "&quot;rewind_step&quot;: 3" in page or '"rewind_step": 3' in page
    for name in ("reconstruction_loss_against_sparsity", "loss_curves", "loss_early_stopping", "reconstructions"):
        picture = np.asarray(Image.open(tmp_path / "run" / "figures" / f"{name}.png").convert("L"))
        assert picture.shape[0] > 200 and picture.std() > 5  # not blank
        assert (tmp_path / "run" / "figures" / f"{name}.svg").read_text().startswith("<?xml")


def test_several_runs_are_panels_of_one_picture(tmp_path):
    arms = [("dense", 0, 0.0), *((arm, n, 1 - 0.5**n) for arm in ("winning", "random") for n in (1, 2))]
    results = [
        Result("imp", "vae", "digits", "both", number, sparsity, arm, seed, 9, "loss", 1.0 + sparsity + 0.1 * seed)
        for arm, number, sparsity in arms
        for seed in (0, 1)
    ]
    points = summary.points(results, "loss")
    runs = {str(n): ("loss", points, summary.winning(points, "lower", "both")) for n in range(5)}
    written = figures.of_runs(runs, tmp_path / "runs")
    assert [path.name for path in written] == ["runs.png", "runs.svg"]
    picture = np.asarray(Image.open(written[0]).convert("L"))
    rows, columns = np.arange(picture.shape[0]) // (picture.shape[0] // 2 + 1), picture.shape[1] // 4
    assert picture[rows == 1][:, :columns].std() > 5  # the fifth panel
    assert picture[rows == 1][:, 2 * columns :].std() == 0  # nothing beside it


def test_no_results_yet_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="no results"):
        write(tmp_path)
