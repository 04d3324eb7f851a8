"""Strict test settings: several host devices, no silent rank promotion, and a persistent compilation cache."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("MPLBACKEND", "agg")

import jax  # noqa: E402  (the environment must be set before the backend starts)
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def unload_programs():
    """A compiled program holds memory maps, and Linux allows a process 65,530: hundreds of tests together have more."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 30_000:
        jax.clear_caches()


@pytest.fixture
def data_dir() -> str:
    """The prepared TFDS directories: TFDS_DATA_DIR, or shared/data/tfds beside the checkout."""
    path = Path(os.environ.get("TFDS_DATA_DIR", ROOT.parent / "shared" / "data" / "tfds"))
    if not path.is_dir():
        pytest.skip(f"no prepared datasets at {path}; set TFDS_DATA_DIR")
    return str(path)
