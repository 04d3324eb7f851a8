"""What is reported: means, spreads, and the winning sparsity as it is defined."""

import numpy as np
import pytest
from scipy import stats

from lotto_jax.metrics import METRICS
from lotto_jax.reports import summary
from lotto_jax.runs.results import Result


def rows(arm, number, sparsity, values, pruned="both", metric="reconstruction_loss"):
    return [
        Result("imp", "m", "d", pruned, number, sparsity, arm, seed, 10, metric, value)
        for seed, value in enumerate(values)
    ]


DENSE = (1.00, 1.02, 0.98)  # std 0.02, so that the tolerance is 10 %


def search(winning, random, metric="reconstruction_loss"):
    results = rows("dense", 0, 0.0, DENSE, metric=metric)
    for number, (w, r) in enumerate(zip(winning, random, strict=True), start=1):
        sparsity = 1 - 0.8**number
        results += rows("winning", number, sparsity, w, metric=metric)
        results += rows("random", number, sparsity, r, metric=metric)
    return summary.points(results, metric)


def test_the_largest_sparsity_where_winning_holds_and_random_is_worse():
    good, worse, bad = (1.0, 1.01, 0.99), (1.5, 1.52, 1.48), (2.0, 2.1, 1.9)
    points = search([good, good, good, bad], [good, worse, worse, bad])
    win = summary.winning(points, "lower", "both")
    assert win.sparsity == pytest.approx(1 - 0.8**3)
    assert win.p_value == pytest.approx(stats.ttest_ind(worse, good, equal_var=False).pvalue / 2)


def test_a_random_ticket_as_good_makes_no_winning_ticket():
    same = (1.0, 1.01, 0.99)
    win = summary.winning(search([same] * 3, [same] * 3), "lower", "both")
    assert win.sparsity is None
    assert "No winning ticket" in summary.sentence(win, "reconstruction_loss")


def test_the_tolerance_is_ten_percent_or_one_standard_deviation_or_what_is_configured():
    edge, random = (1.09, 1.08, 1.10), (3.0, 3.1, 2.9)
    points = search([edge], [random])
    assert summary.winning(points, "lower", "both").sparsity is not None
    assert summary.winning(points, "lower", "both", tolerance=0.05).sparsity is None
    dense = summary.Point("both", "dense", 0, 0.0, (1.0, 2.0, 3.0))
    assert summary.default_tolerance(dense) == pytest.approx(1.0)


def test_for_accuracy_higher_is_better():
    points = search([(0.99, 1.0, 1.01)], [(0.5, 0.52, 0.48)], metric="accuracy")
    assert summary.winning(points, "higher", "both").sparsity == pytest.approx(0.2)
    points = search([(0.5, 0.52, 0.48)], [(0.4, 0.42, 0.38)], metric="accuracy")
    assert summary.winning(points, "higher", "both").sparsity is None


def test_one_seed_decides_nothing_and_neither_does_a_missing_random_arm():
    assert summary.winning(search([(1.0,)], [(9.0,)]), "lower", "both") is None
    points = [p for p in search([(1.0, 1.1)], [(9.0, 9.1)]) if p.arm != "random"]
    assert summary.winning(points, "lower", "both") is None


def test_a_loss_that_is_neither_good_nor_bad_makes_no_winner():
    assert summary.winning(search([(1.0, 1.01)], [(9.0, 9.1)]), "neither", "both") is None


def test_collapsed_seeds_are_counted_and_left_out():
    results = rows("winning", 1, 0.2, (1.0, 3.0, 100.0)) + rows("winning", 1, 0.2, (0.0, 0.0, 1.0), metric="collapsed")
    (point,) = summary.points(results, "reconstruction_loss")
    assert point.values == (1.0, 3.0) and point.collapsed == 1
    assert summary.table([point])[1][0][-1] == "2.0 ± 1.4 (1 of 3 collapsed)"
    assert summary.metrics(results) == ["reconstruction_loss"]


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_declares_its_direction_and_only_the_fid_has_a_tolerance_of_ten_points(name):
    metric = METRICS[name]
    assert metric.better == (
        "lower"
        if name in ("frechet", "fid", "fd_resnet18", "fd_dinov2", "kid", "cmmd", "energy_distance")
        else "higher"
    )
    assert metric.tolerance == ({"inception": 10.0} if name in ("frechet", "fid", "fd_resnet18") else {})
    assert not any(metric.column_names("resnet18", "2k")[0].startswith("fid") for metric in METRICS.values())
    points = search([(0.5, 0.52, 0.48)], [(0.4, 0.42, 0.38)] if metric.better == "higher" else [(0.6, 0.62, 0.58)])
    found = summary.winning(points, metric.better, "both")
    assert (found.sparsity is None) == (metric.better == "higher")  # dense is 1.0


def test_an_arm_without_spread_is_compared_all_the_same():
    points = search([(0.1 + 0.2, 0.3, 0.3)], [(0.05, 0.06, 0.07)], metric="accuracy")
    dense = [p._replace(values=(0.3, 0.3, 0.3)) if p.arm == "dense" else p for p in points]
    assert summary.winning(dense, "higher", "both").sparsity == pytest.approx(0.2)


def test_a_search_that_found_nothing_has_no_step():
    found = rows("early_bird", 1, 0.5, (273.0, -1.0), metric="found_step")
    (point,) = summary.points(found, "found_step")
    assert point.values == (273.0,) and summary.cell(point) == "273 ± 0 (1 of 2 not found)"


def test_the_spread_is_the_sample_standard_deviation():
    values = (1.0, 2.0, 4.0)
    point = summary.Point("both", "winning", 1, 0.2, values)
    assert point.mean == pytest.approx(np.mean(values)) and point.std == pytest.approx(np.std(values, ddof=1))
    assert summary.Point("both", "winning", 1, 0.2, (1.0,)).std == 0.0


def test_the_table_has_a_row_a_sparsity_and_a_column_an_arm():
    results = rows("dense", 0, 0.0, DENSE) + rows("winning", 1, 0.2, (1.0, 3.0)) + rows("one_shot", 1, 0.5, (2.0, 2.0))
    header, body = summary.table(summary.points(results, "reconstruction_loss"))
    assert header == ["sparsity", "dense", "winning", "one_shot"]
    assert body[0] == ["0.00%", "1.000 ± 0.020", "", ""]
    assert body[1] == ["20.00%", "", "2.0 ± 1.4", ""]
    assert body[2] == ["50.00%", "", "", "2 ± 0"]


def test_holms_correction_by_hand():
    """Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.04, which must not fall."""
    assert summary.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert summary.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert summary.holm([0.3]) == [0.3] and summary.holm([]) == []


def test_the_strict_sparsity_takes_no_round_behind_one_that_is_too_bad():
    good, bad, worse = (1.0, 1.01, 0.99), (1.2, 1.21, 1.19), (2.0, 2.1, 1.9)
    points = search([good, good, bad, good], [worse] * 4)
    assert summary.winning(points, "lower", "both").sparsity == pytest.approx(1 - 0.8**4)
    strict = summary.strictly_winning(points, "lower", "both")
    assert strict.sparsity == pytest.approx(1 - 0.8**2)
    assert "up to there" in summary.strict_sentence(strict, "loss").lower()


def test_the_strict_sparsity_needs_significance_at_its_end_only_and_after_holm():
    """One of four tests at p = 0.0285 is not significant after the factor 4; at one test it is."""
    good, same, near = (1.0, 1.02, 0.98), (1.0, 1.01, 0.99), (1.04, 1.09, 1.05)
    raw = stats.ttest_ind(near, good, equal_var=False, alternative="greater").pvalue
    assert 0.0125 < raw < 0.05
    alone = summary.strictly_winning(search([good], [near]), "lower", "both")
    assert alone.sparsity == pytest.approx(0.2) and alone.p_value == pytest.approx(raw)
    four = search([good] * 4, [same, same, same, near])
    assert summary.winning(four, "lower", "both").sparsity == pytest.approx(1 - 0.8**4)
    assert summary.strictly_winning(four, "lower", "both").sparsity is None
    clear = summary.strictly_winning(search([good] * 4, [same, same, same, (2.0, 2.1, 1.9)]), "lower", "both")
    assert clear.sparsity == pytest.approx(1 - 0.8**4)
    raw = stats.ttest_ind((2.0, 2.1, 1.9), good, equal_var=False, alternative="greater").pvalue
    assert clear.p_value == pytest.approx(4 * raw)


def test_the_strict_sparsity_takes_three_seeds_and_no_collapse():
    assert summary.strictly_winning(search([(1.0, 1.01)], [(9.0, 9.1)]), "lower", "both") is None
    good, worse = (1.0, 1.01, 0.99), (2.0, 2.1, 1.9)
    points = search([good, good[:2], good], [worse] * 3)
    assert summary.strictly_winning(points, "lower", "both").sparsity == pytest.approx(0.2)
    points = [
        p._replace(collapsed=1) if (p.arm, p.round) == ("winning", 2) else p for p in search([good] * 3, [worse] * 3)
    ]
    assert summary.strictly_winning(points, "lower", "both").sparsity == pytest.approx(0.2)
    higher = search([(0.99, 1.0, 1.01)], [(0.5, 0.52, 0.48)], metric="accuracy")
    assert summary.strictly_winning(higher, "higher", "both").sparsity == pytest.approx(0.2)
    assert summary.strictly_winning(higher, "lower", "both").sparsity is None
    assert summary.strictly_winning(higher, "neither", "both") is None
