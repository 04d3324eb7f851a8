#!/usr/bin/env bash
# Set up .venv if needed, find winning tickets of a small autoencoder on bundled digits, and show them.
#   scripts/demo.sh [WORKDIR]     default: runs/demo; a run that is there already goes on, or is shown again
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
ensure_venv .venv ""
workdir=${1:-runs/demo}
exec .venv/bin/lotto-jax run --config=configs/quickstart.py --workdir="$workdir"
