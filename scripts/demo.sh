#!/usr/bin/env bash
# Set up .venv if needed, find winning tickets of a small autoencoder on bundled digits, and show them.
#   scripts/demo.sh [WORKDIR]     default: runs/demo, started afresh
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
ensure_venv .venv ""
workdir=${1:-runs/demo}
[ $# -gt 0 ] || rm -rf "$workdir"
exec .venv/bin/lotto-jax run --config=configs/quickstart.py --workdir="$workdir"
