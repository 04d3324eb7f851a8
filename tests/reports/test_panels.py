"""What fits on a plot of a metric against sparsity."""

import itertools

import pytest

from lotto_jax.reports import figures
from lotto_jax.reports.panels import Line, Panel
from lotto_jax.reports.summary import Point


def point(arm, sparsity, *values):
    return Point("both", arm, 0, sparsity, values)


def panel(title, *random):
    lines = [
        Line("winning", "winning", [point("winning", s, 1.0, 1.1) for s in (0.2, 0.36, 0.488)]),
        Line(
            "random",
            "random",
            [point("random", s, v, v + 0.1) for s, v in zip((0.2, 0.36, 0.488), random, strict=True)],
        ),
        Line("one shot", "one_shot", [point("one_shot", s, 50.0, 60.0) for s in (0.5, 0.9, 0.99)]),
    ]
    return Panel(title, "loss", point("dense", 0.0, 1.0, 1.2), lines, [])


def test_bars_of_all_lines_but_those_of_one_shot_tickets_are_on_the_axis():
    low, high = panel("", 1.3, 0.4, 2.0).range()
    assert low < 0.4 < 2.1 < high < 3


def test_a_bar_that_is_longer_than_all_else_does_not_decide():
    wild = panel("", 1.3, 1.4, 1.5)
    wild.lines[1].points[0] = point("random", 0.2, -50.0, 52.6)
    low, high = wild.range()
    assert low > 0 and high < 2.5


def test_labels_keep_their_distance_and_reach_as_far_as_the_lines():
    one = panel("", 1.3, 1.4, 1.5)
    places = [one.position(s) for s in one.ticks()]
    assert all(b - a > places[-1] / 7 for a, b in itertools.pairwise(places)) and one.ticks()[-1] == pytest.approx(0.99)


def test_panels_that_share_an_axis_all_fit_on_it(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(figures, "save", lambda figure, path: kept.append(figure))
    figures.against_sparsity([panel("a", 5.0, 5.1, 5.2), panel("b", 1.3, 1.4, 1.5)], "title", tmp_path / "figure")
    low, high = kept[0].axes[0].get_ylim()
    assert low < 1.0 and high > 5.3 and kept[0].axes[1].get_ylim() == (low, high)
