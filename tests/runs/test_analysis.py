"""analysis.csv: rows are replaced by quantity, and a damaged file is noticed and made again."""

import math

import pytest

from lotto_jax.runs import analysis
from lotto_jax.runs.analysis import Row


def row(quantity, value, **fields):
    return Row(quantity, "both", 1, 0.2, "winning", "0/1", "all", value)._replace(**fields)


def test_rows_of_a_quantity_are_replaced_and_others_stay(tmp_path):
    assert analysis.read(tmp_path) == []
    first = [row("a", 1.0), row("a", 2.0, layer="encoder/kernel")]
    analysis.replace(tmp_path, ["a"], first)
    analysis.replace(tmp_path, ["b"], [row("b", math.nan)])
    analysis.replace(tmp_path, ["a"], [row("a", 1 / 3)])
    found = analysis.read(tmp_path)
    assert [r.quantity for r in found] == ["b", "a"] and math.isnan(found[0].value)
    assert found[1].value == pytest.approx(1 / 3, rel=1e-8) and found[1][:-1] == first[0][:-1]


def test_a_damaged_file_is_one_sentence_and_is_made_again(tmp_path):
    analysis.replace(tmp_path, ["a", "b"], [row("a", 1.0), row("b", 2.0)])
    file = tmp_path / analysis.ANALYSIS
    file.write_text(file.read_text().replace("2", "3"))
    with pytest.raises(ValueError, match=r"is damaged; `lotto-jax analyse --workdir=.*` makes it again"):
        analysis.read(tmp_path)
    with pytest.warns(UserWarning, match="is damaged"):
        analysis.replace(tmp_path, ["a"], [row("a", 4.0)])
    assert analysis.read(tmp_path) == [row("a", 4.0)]
