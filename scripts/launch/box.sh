#!/usr/bin/env bash
# Run a configuration on all GPUs of this machine, in one process; CUDA_VISIBLE_DEVICES=0,1 chooses some of them.
#   scripts/launch/box.sh --config=configs/dcgan_cifar10.py --workdir=runs/dcgan
set -uo pipefail
while true; do
  lotto-jax run "$@"
  status=$?
  # Ended by a signal (out of memory, a fault of the driver): go on with the run, unless somebody stopped it.
  if [ "$status" -lt 128 ] || [ "$status" = 130 ] || [ "$status" = 143 ]; then exit "$status"; fi
  echo "The run was killed (exit status $status); going on with it in 10 s." >&2
  sleep "${PAUSE:-10}"
done
