#!/bin/sh
# SLURM: an array, a run of the sweep a task; as many tasks as --list prints lines.
#   sbatch --array=0-5%4 launch/sweep/slurm.sh --config experiments/sweep_digits.py --workdir $SCRATCH/rates
#SBATCH --gpus=1 --cpus-per-task=8 --time=24:00:00
#SBATCH --requeue --open-mode=append --signal=TERM@120
srun python -m ddpm.main "$@" --index "$SLURM_ARRAY_TASK_ID"
code=$?
[ $code -ne 75 ] || scontrol requeue "$SLURM_JOB_ID" # it was told to leave, and saved: it goes on in its next turn
exit $code
