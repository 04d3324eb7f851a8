"""Benchmarks of `scripts/bench.py`: one module each, with a `run() -> Iterator[Row]`."""
