"""Early-stopping steps and bootstrap intervals, against cases worked out by hand."""

import itertools
import json

import numpy as np
import pytest

from lotto_jax.reports import convergence
from lotto_jax.reports.sections import Source
from lotto_jax.runs import curves


def test_the_early_stopping_step_is_where_the_moving_mean_has_almost_fallen():
    step = np.array([10, 20, 30, 40, 50, 60])
    loss = np.array([9.0, 1.0, 8.0, 4.0, 3.0, 5.0])
    assert convergence.early_stopping_step(step, loss, window=1, share=0.0) == 20
    assert convergence.early_stopping_step(step, loss, window=2, share=0.0) == 50  # means 5, 4.5, 6, 3.5, 4
    assert convergence.early_stopping_step(step, loss, window=3, share=0.0) == 60  # means 6, 4.33, 5, 4
    assert convergence.early_stopping_step(step, loss, window=99, share=0.0) == 60
    falling = np.array([20.0, 10.0, 2.0, 1.0, 0.5, 0.0])  # 5 % of the fall is 1
    assert convergence.early_stopping_step(step, falling, window=1, share=0.05) == 40
    assert convergence.early_stopping_step(step, falling - 30, window=1, share=0.05) == 40  # also below zero
    assert convergence.early_stopping_step(step, falling, window=1, share=0.0) == 60


def point(arm, number, seed, step, loss):
    sparsity = 1 - 0.8**number
    return {
        "pruned": "both",
        "arm": arm,
        "round": number,
        "sparsity": sparsity,
        "seed": seed,
        "step": step,
        "loss": loss,
    }


def test_steps_are_grouped_over_seeds_and_collapsed_curves_are_counted():
    log = [point("winning", 1, seed, 10 * i, 100 * abs(i - 7 - 2 * seed)) for seed in (0, 1) for i in range(20)]
    log += [point("random", 1, 0, 10 * i, np.nan) for i in range(20)]
    log += [{**point("random", 1, 0, 1, 0.0), "loss": 1.0, "arm": "dense", "round": 0, "sparsity": 0.0}]
    found = {p.arm: p for p in convergence.early_stopping(reversed(log), "loss")}
    assert sorted(found["winning"].values) == [90.0, 100.0]  # the first means of at most 139 and 149
    assert found["random"].values == () and found["random"].collapsed == 1
    assert found["dense"].values == (1.0,)


def test_the_interval_is_that_of_all_resamples_of_three_seeds():
    """All 27 resamples: the 2.5 % and 97.5 % quantiles of their means."""
    values = (1.0, 2.0, 6.0)
    means = np.mean(list(itertools.product(values, repeat=3)), axis=1)
    low, high = convergence.interval(values)
    exact = [np.quantile(means, q, method="inverted_cdf") for q in (0.025, 0.975)]
    assert [low, high] == pytest.approx(exact)
    five = (1.0, 2.2, 6.7, 3.1, 4.9)
    means = np.mean(list(itertools.product(five, repeat=5)), axis=1)
    assert convergence.interval(five, level=0.5) == pytest.approx(np.quantile(means, (0.25, 0.75)), abs=0.1)
    low, high = convergence.interval(values)
    assert convergence.interval(values) == (low, high)  # no randomness between reports
    assert convergence.interval((3.0, 3.0)) == (3.0, 3.0)
    assert convergence.interval((3.0,)) is None


def test_held_out_losses_decide_where_they_are_recorded(tmp_path):
    log = [{"position": i, **point("winning", 1, 0, 10 * i, 30.0 - i)} for i in range(1, 20)]
    curves.append(tmp_path, log)
    (tmp_path / "metrics.json").write_text(json.dumps({"loss": {"better": "lower"}}))
    source = Source(tmp_path, {}, [], "a run")
    assert "Early stopping by training loss" in convergence.convergence(source)[0].text[1]
    held_out = [{**p, "loss": abs(p["step"] - 50.0)} for p in log if p["step"] % 50 == 0]
    curves.append(tmp_path, held_out, curves.HELD_OUT)
    [section] = convergence.convergence(source)
    assert "Early stopping by loss" in section.text[1] and any(" 50" in line for line in section.text)
