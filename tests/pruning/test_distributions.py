"""Numbers of kept entries against float64 water filling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lotto_jax.pruning import distributions

shapes = st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=4).map(tuple), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(shapes, st.integers(0, 100), st.sampled_from(["uniform", "erdos_renyi", "erdos_renyi_kernel"]))
def test_counts_sum_to_the_budget_and_follow_the_equation(shapes, percent, name):
    named = {str(i): shape for i, shape in enumerate(shapes)}
    sizes = np.array([np.prod(s) for s in shapes], float)
    budget = sizes.sum() - round(percent * int(sizes.sum()) / 100)
    counts = distributions.kept_counts(named, percent / 100, name)
    assert sum(counts) == budget
    raw = [
        1.0
        if name == "uniform"
        else sum(s if name.endswith("kernel") else s[-2:]) / np.prod(s if name.endswith("kernel") else s[-2:])
        for s in shapes
    ]
    low, high = 0.0, 1e6  # epsilon, such that min(1, epsilon raw) has the budget
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (np.minimum(1, middle * np.array(raw)) * sizes).sum() < budget else (low, middle)
    wanted = np.minimum(1, high * np.array(raw)) * sizes
    assert np.all(np.abs(counts - wanted) < 1 + 1e-6) and np.all(counts <= sizes)


def test_expressions_give_leaves_their_own_sparsity():
    named = {"encoder/kernel": (10, 10), "decoder/kernel": (10, 20), "head/kernel": (4, 5)}
    by_name = {"encoder/.*": 0.9, ".*coder/.*": 0.5}
    assert distributions.kept_counts(named, 0.1, by_name) == [10, 100, 20]
    with pytest.raises(ValueError, match="distribution is 'erk'; it takes one of global, uniform, erdos_renyi"):
        distributions.kept_counts(named, 0.1, "erk")
    with pytest.raises(ValueError, match=r"The sparsity for '.\*' is 2"):
        distributions.kept_counts(named, 0.1, {".*": 2})
