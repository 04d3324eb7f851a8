"""The report of a real search: one HTML file that says what was measured, tables, and figures as files."""

import csv
import html
import re

import numpy as np
import pytest
from PIL import Image

from lotto_jax.experiments.report import write
from lotto_jax.experiments.run import run
from lotto_jax.reports import figures, panels, summary
from lotto_jax.runs.results import Result
from tests import tiny


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run, what its report prints, and its page."""
    path = tmp_path_factory.mktemp("reported") / "run"
    run(tiny.config(imp__one_shot_sparsities=(0.5,), evaluation__images=2), path)
    text = write(path, paper=True)
    return path, text, (path / "report.html").read_text()


def test_a_report_is_one_file_with_table_figures_and_configuration(done):
    path, text, page = done
    assert "winning" in text and "one_shot" in text and "36.0" in text
    assert "Early stopping by training loss" in text and "95 % interval of the mean" in page
    assert '<meta name="viewport"' in page and "prefers-color-scheme: dark" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # nothing outside the file
    assert page.count('class="chart"') == 4  # against sparsity, two arms while training, early stopping
    assert page.count("<noscript><img") == 3 and page.count("data:image/png;base64,") == 4  # and the images
    for name in (
        "reconstruction_loss_against_sparsity",
        "loss_curves",
        "training_loss_early_stopping",
        "reconstructions",
    ):
        picture = np.asarray(Image.open(path / "figures" / f"{name}.png").convert("L"))
        assert picture.shape[0] > 200 and picture.std() > 5  # not blank
        assert (path / "figures" / f"{name}.svg").read_text().startswith("<?xml")
        pdf = (path / "paper" / f"{name}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF") and b"/Type3" not in pdf


def test_the_answer_comes_first_and_only_terms_that_occur_are_explained(done):
    _, text, page = done
    headline = text.splitlines()[2]
    assert "winning ticket" in headline or headline.startswith("Undecided")
    body = page.partition("<body>")[2]
    assert body.index("headline") < body.index("<nav") < body.index("<table")
    assert html.escape(headline) in body and "lower is better" in body
    terms = body.partition('id="terms"')[2]
    assert "one_shot" in terms and "snip" not in terms and "early_bird" not in terms


def test_the_configuration_is_folded_to_what_differs(done):
    _, _, page = done
    setup = page.partition('id="setup"')[2].partition('id="terms"')[0]
    shown, _, folded = setup.partition("<details>")
    assert "imp.rewind_step" in shown and "checkpoint.keep_states" not in shown
    assert "keep_states" in folded and re.search(r"<dt>commit</dt><dd[^>]*>[0-9a-f]{12}|unknown", setup)


def test_links_within_the_page_lead_somewhere_and_ids_are_unique(done):
    _, _, page = done
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_tables_are_files_in_three_formats_with_the_numbers_of_the_summary(done):
    path, text, _ = done
    with open(path / "tables" / "reconstruction_loss_both.csv") as file:
        header, *rows = csv.reader(file)
    assert header == ["sparsity", "dense", "winning", "random", "one_shot"]
    assert all(cell in text for row in rows for cell in row)
    assert r"\begin{tabular}{lrrrr}" in (path / "tables" / "reconstruction_loss_both.tex").read_text()
    assert (path / "tables" / "reconstruction_loss_both.md").read_text().startswith("| sparsity | dense |")


def test_several_runs_are_panels_of_one_picture(tmp_path):
    arms = [("dense", 0, 0.0), *((arm, n, 1 - 0.5**n) for arm in ("winning", "random") for n in (1, 2))]
    results = [
        Result("imp", "vae", "digits", "both", number, sparsity, arm, seed, 9, "loss", 1.0 + sparsity + 0.1 * seed)
        for arm, number, sparsity in arms
        for seed in (0, 1)
    ]
    points = summary.points(results, "loss")
    shown = [panels.of_choice(points, "loss", "both", [], str(n)) for n in range(4)]
    written = figures.of_runs(shown, tmp_path / "runs", missing=["a gap"])
    assert [path.name for path in written] == ["runs.png", "runs.svg"]
    picture = np.asarray(Image.open(written[0]).convert("L"))
    lower, columns = picture[int(0.6 * picture.shape[0]) :], picture.shape[1] // 4
    assert lower[:, :columns].std() > 5  # the fifth panel, which says that it is missing
    assert lower[:, 2 * columns :].std() == 0  # nothing beside it


def test_no_results_yet_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="no results"):
        write(tmp_path)
