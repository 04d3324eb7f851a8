"""Entry points of development: benchmarks."""
