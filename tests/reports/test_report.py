"""The report of a real search: one HTML file, and figures that show what was measured."""

import re

import numpy as np
import pytest
from PIL import Image

from lotto_jax.experiments.run import run
from lotto_jax.reports.report import write
from tests import tiny


def test_a_report_is_one_file_with_table_figures_and_configuration(tmp_path):
    run(tiny.config(imp__one_shot_sparsities=(0.5,)), tmp_path / "run")
    text = write(tmp_path / "run")
    assert "winning" in text and "one_shot" in text and "36.0" in text
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3  # against sparsity, curves, images
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing outside the file
    assert "&quot;rewind_step&quot;: 3" in page or '"rewind_step": 3' in page
    for name in ("reconstruction_loss_against_sparsity", "loss_curves", "reconstructions"):
        picture = np.asarray(Image.open(tmp_path / "run" / "figures" / f"{name}.png").convert("L"))
        assert picture.shape[0] > 200 and picture.std() > 5  # not blank
        assert (tmp_path / "run" / "figures" / f"{name}.svg").read_text().startswith("<?xml")


def test_no_results_yet_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="no results"):
        write(tmp_path)
