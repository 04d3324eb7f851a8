"""The compilers of TPUs and GPUs, on a machine that has neither."""

import os

import jax
import pytest

from lotto_jax.training import topologies

NAMES = ("v5e:2x4", "h100:1x1x8")
COMPILERS = {"v5e:2x4": "libtpu", "h100:1x1x8": "jax_plugins.xla_cuda12"}

os.environ.update(topologies.environment(NAMES[0]))
jax.config.update("jax_enable_compilation_cache", False)
# What is asserted does not depend on it, and it is a third of the time.
jax.config.update("jax_exec_time_optimization_effort", -1.0)


@pytest.fixture(scope="session", params=NAMES)
def topology(request):
    """Eight devices."""
    pytest.importorskip(COMPILERS[request.param], reason="scripts/test.sh --pods installs it")
    return topologies.of(request.param)
