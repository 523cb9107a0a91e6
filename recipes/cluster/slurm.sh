#!/usr/bin/env bash
#SBATCH --job-name=forethought
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
# A Ray cluster for one job: sbatch recipes/cluster/slurm.sh build prompts.parquet --out SHARED/build
# Sent again after a time limit or a lost node, the same command goes on where it was. With GPUs add --gpus-per-node.
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0
port=6379
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --nodes=1 --ntasks=1 -w "$head" ray start --head --port $port --num-cpus "$SLURM_CPUS_ON_NODE" --block &
sleep 15
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
    ray start --address "$head:$port" --num-cpus "$SLURM_CPUS_ON_NODE" --block &
fi
sleep 15
# On the head's node: a driver joins the cluster of its own machine.
srun --overlap --nodes=1 --ntasks=1 -w "$head" forethought "$@" --on "$head:$port"
