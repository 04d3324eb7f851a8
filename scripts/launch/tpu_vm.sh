#!/usr/bin/env bash
# Run a configuration on every host of a TPU VM slice, which is made if it is not there; the same command goes on.
#   NAME=lotto ZONE=us-west4-a TYPE=v5litepod-16 VERSION=v2-alpha-tpuv5-lite scripts/launch/tpu_vm.sh \
#     --config=configs/dcgan_cifar10.py --workdir=/mnt/runs/dcgan
set -euo pipefail
cd "$(dirname "$0")/../.."
for variable in NAME ZONE TYPE VERSION; do
  if [ -z "${!variable:-}" ]; then echo "Set $variable; docs/launch.md says to what." >&2; exit 2; fi
done
tpu() { gcloud compute tpus tpu-vm "$@" --zone="$ZONE" --quiet; }

state=$(tpu describe "$NAME" --format='value(state)' 2> /dev/null || true)
if [ "$state" != READY ]; then
  if [ -n "$state" ]; then tpu delete "$NAME"; fi  # one that was taken away stays listed
  tpu create "$NAME" --accelerator-type="$TYPE" --version="$VERSION" ${SPOT:+--spot}
fi
archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz --output="$archive" HEAD
tpu scp "$archive" "$NAME:lotto_jax.tar.gz" --worker=all
# Every host gets the same command; JAX learns from the machine's metadata how many there are.
tpu ssh "$NAME" --worker=all --command="
  set -e
  command -v python3.11 > /dev/null || sudo apt-get install -qy python3.11-venv
  mkdir -p lotto_jax && tar -xzf lotto_jax.tar.gz -C lotto_jax && cd lotto_jax
  export PYTHON=python3.11
  source scripts/setup.sh && ensure_venv .venv tpu
  .venv/bin/lotto-jax run $(printf '%q ' "$@")"
