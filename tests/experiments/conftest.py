"""A tiny classifier of digits, trained once for all tests that need one."""

import pytest

from lotto_jax.experiments.run import run
from tests import tiny


@pytest.fixture(scope="session")
def classifier_dir(tmp_path_factory):
    """The finished run of a classifier of digits."""
    path = tmp_path_factory.mktemp("classifier") / "run"
    run(tiny.classifier(), path)
    return path
