"""What `scripts/fault_test.py` does to runs: modules of faults, each with a `run(bench) -> Iterator[Verdict]`."""
