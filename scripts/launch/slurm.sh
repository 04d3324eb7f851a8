#!/usr/bin/env bash
# Run a configuration on the GPUs of several nodes, one process a GPU; the working directory is on a shared file system.
#   sbatch --nodes=2 scripts/launch/slurm.sh --config=configs/dcgan_cifar10.py --workdir=runs/dcgan
#SBATCH --job-name=lotto-jax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
# Every process sees all GPUs of its node, of which JAX takes the one with the number SLURM_LOCALID.
set -uo pipefail
srun --kill-on-bad-exit=1 lotto-jax run "$@"
status=$?
# Five minutes before the time is up the run is told to save; then it goes on in the next slot.
if [ "$status" = 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
