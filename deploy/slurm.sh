#!/usr/bin/env bash
# The study on Slurm: a Ray node on every machine of the job, the driver on the first. From the checkout, in a folder that
# all machines see, with sbbridge installed in the Python environment that is active (sbatch hands on its variables):
#   export SB_INCEPTION=/SHARED/inception
#   sbatch --nodes=4 --gpus-per-node=1 deploy/slurm.sh --dataset cifar10 --data-root /SHARED/data --num-workers 4 --use-gpu
# The same command continues a study that the time limit ended; its report is in results/, on the same folder.
#SBATCH --job-name=sbbridge
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive          # symmetric-run ends with `ray stop`, and that with every Ray process of yours on the machine
#SBATCH --time=24:00:00
set -euo pipefail

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
ray get-auth-token --generate > /dev/null             # in the home folder, which all machines see
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300     # seconds; machines of a job do not start in step

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# by its address: on many machines their own name is 127.0.1.1
address=$(srun --nodes=1 --ntasks=1 --nodelist="$first" hostname -I | awk '{print $1}')
srun ray symmetric-run --address "$address:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --resources='{"train_driver": 64}' -- python studies/asbm_sweep.py --address auto "$@"
