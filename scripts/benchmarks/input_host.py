"""A host of `scripts/benchmarks/input.py`: `python -m scripts.benchmarks.input_host IMAGES COORDINATOR NUMBER`."""

import json
import sys
from pathlib import Path

from scripts.benchmarks import input as benchmark

if __name__ == "__main__":
    print(json.dumps(benchmark.host(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
