"""Two real processes make one run; `scripts/hosts_test.py` has more of them, killed and stopped."""

import signal

import pytest

from scripts.hosts_test import SEEDS, Launch, finished

SMALL = (SEEDS[2], "--config.imp.arms=('winning',)", "--config.evaluation.images=0")

pytestmark = pytest.mark.timeout(900)  # four processes, on a busy machine


def test_sigterm_to_one_process_saves_on_both_and_a_single_one_goes_on_to_the_same_results(tmp_path):
    path = tmp_path / "run"
    launch = Launch(path, 2, 1, *SMALL).in_round(0).send(1, signal.SIGTERM)
    assert launch.statuses() == [143, 143], launch.text(0)
    for process in (0, 1):
        (said,) = launch.sentences(process)
        assert "the state is saved, and the same command goes on" in said
    assert "ticket-steps" not in launch.text(1)  # the first process alone shows its progress
    assert finished(path, 1, 2, *SMALL) == finished(tmp_path / "undisturbed", 1, 2, *SMALL)
