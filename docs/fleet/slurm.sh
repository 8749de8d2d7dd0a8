#!/bin/bash
# One array a device type; `harness plan` prints the numbers of its shards, and the minutes that none should exceed:
#
#     sbatch --array=0-39 --gres=gpu:h100:1 --time=45 docs/fleet/slurm.sh
#     sbatch --dependency=afterany:JOB --wrap 'harness merge shards -o reports/2026-11-26'
#
#SBATCH --job-name=harness-shard
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --time=01:00:00 # where no night has measured it
set -euo pipefail

# Exit code 1 says that a verdict failed: merging tells that. Slurm only has to know of shards that did not run.
pytest suites/ --shard="$SLURM_ARRAY_TASK_ID" --shard-plan=shards.json \
  --shard-attempt="$((${SLURM_RESTART_COUNT:-0} + 1))" --report-dir=shards || [ $? -eq 1 ]
