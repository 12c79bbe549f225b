#!/bin/sh
# A workstation: the runs of a sweep in turn, one on each GPU at a time.
#   launch/sweep/gpus.sh 4 --config experiments/sweep_digits.py --workdir runs/rates
# Ctrl-C saves and leaves; the same command goes on.
set -eu
gpus=$1
shift
last=$(($(python -m ddpm.main "$@" --list | wc -l) - 1))
[ "$last" -ge 0 ] || exit 2 # what is wrong was printed
seq 0 "$last" | xargs -P "$gpus" -I {} --process-slot-var=CUDA_VISIBLE_DEVICES python -m ddpm.main "$@" --index {}
