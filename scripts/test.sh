#!/usr/bin/env bash
# Set up .venv if needed, then lint, type-check and test.
#   scripts/test.sh [PYTEST ARGS]            the suite
#   scripts/test.sh --parity [PYTEST ARGS]   comparisons with PyTorch peers, in .venv-parity
#   scripts/test.sh --pods [PYTEST ARGS]     programs compiled for TPUs and GPUs that are not here, in .venv-pods
#   scripts/test.sh --newest [PYTEST ARGS]   the suite with the newest versions of all packages, in .venv-newest
#   scripts/test.sh --report                 reports in a headless Chromium, which has to be there, in .venv-browser
#   scripts/test.sh --docs                   the site, built strictly into site/, and its examples, in .venv-docs
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
# Programs that run for a moment need little optimization and no MLIR, which are most of compiling on a CPU.

if [ "${1:-}" = --parity ]; then
  shift
  ensure_venv .venv-parity dev,parity
  export XLA_FLAGS="${XLA_FLAGS:-} --xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false"
  exec .venv-parity/bin/python -m pytest -n 2 tests/parity "$@"
fi
if [ "${1:-}" = --pods ]; then
  shift
  ensure_venv .venv-pods dev,pods
  exec .venv-pods/bin/python -m pytest -n 2 tests/pods "$@"
fi
if [ "${1:-}" = --docs ]; then
  ensure_venv .venv-docs docs
  NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict
  exec .venv-docs/bin/python -m pytest tests/docs
fi
if [ "${1:-}" = --report ]; then
  shift
  ensure_venv .venv-browser browser
  exec .venv-browser/bin/python scripts/report_test.py "$@"
fi
venv=.venv
if [ "${1:-}" = --newest ]; then
  shift
  venv=.venv-newest
  CONSTRAINTS=/dev/null ensure_venv "$venv" dev
else
  ensure_venv "$venv" dev
  .venv/bin/ruff check .
  .venv/bin/ruff format --check .
  .venv/bin/mypy
fi
export XLA_FLAGS="${XLA_FLAGS:-} --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
# In the order of the files: the long modules come first, so that neither core waits for the other at the end.
exec "$venv/bin/python" -m pytest -n 2 --dist=loadscope --no-loadscope-reorder --max-worker-restart=0 \
  --ignore=tests/parity --ignore=tests/pods --ignore=tests/docs "$@"
