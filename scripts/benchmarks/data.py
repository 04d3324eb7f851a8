"""Decoding CelebA into the cache: images a second, and memory, which must not grow with the number of images."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.benchmarks import celeb_a
from scripts.benchmarks.common import ROOT, Row

COUNTS = (5_000, 40_000)
FULL = 202_599
PROGRAM = """
import json, sys
from pathlib import Path
from lotto_jax.data import sources
dataset = sources.load("celeb_a", sys.argv[1], image_size=64)
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({"images": len(dataset.train.label), "mib": int(status["VmHWM"].split()[0]) / 1024}))
"""


def run() -> Iterator[Row]:
    """Rows: speed and peak memory, of the larger dataset against the smaller."""
    found = []
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as directory:
            celeb_a.write(Path(directory), {"train": count, "validation": 10, "test": 10})
            environment = os.environ | {"LOTTO_JAX_CACHE": f"{directory}/cache", "PYTHONPATH": str(ROOT)}
            began = time.perf_counter()
            process = subprocess.run(
                [sys.executable, "-c", PROGRAM, directory], env=environment, check=True, capture_output=True, text=True
            )
            seconds = time.perf_counter() - began
            result = json.loads(process.stdout.splitlines()[-1])
            assert result["images"] == count
            found.append((result["mib"], seconds))
    (small, short), (large, long) = found
    rate = (COUNTS[1] - COUNTS[0]) / (long - short)
    peer = f"all {FULL:,} images take {FULL / rate / 60:.1f} min"
    yield Row("CelebA 218x178 to 64x64 into the cache", rate, "images/s", peer)
    peer = f"MiB of {COUNTS[0]:,} images; target 4 GB"
    yield Row(f"  peak memory with {COUNTS[1]:,} images", large, "MiB", peer, large / small, 1.1, "lower")
