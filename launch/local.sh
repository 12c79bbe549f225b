#!/usr/bin/env bash
# A sweep over the GPUs of this machine, --jobs runs at a time (one a GPU), each with its share of the GPUs. Without a GPU: --jobs 2.
# One run on all GPUs needs no script: python -m ddpm.main --config ... --workdir ...
# Needs bash >= 4.4, and the environment that has ddpm, or PYTHON=path/to/python.
set -euo pipefail
PYTHON=${PYTHON:-python}

usage() {
  echo "usage: launch/local.sh [--jobs N] --config FILE --workdir DIR [--sweep 'KEY=A,B ...'] [flags of ddpm.main]" >&2
  exit 2
}

jobs='' workdir='' run=()
while (($#)); do
  case $1 in
    --jobs) jobs=${2-} && shift ;;
    --jobs=*) jobs=${1#*=} ;;
    --workdir) workdir=${2-} run+=("$1" "${2-}") && shift ;;
    --workdir=*) workdir=${1#*=} run+=("$1") ;;
    *) run+=("$1") ;;
  esac
  shift || usage
done
[[ $workdir ]] || usage
[[ $workdir != *://* ]] || { echo "launch/local.sh: its logs need a --workdir on this machine, not $workdir" >&2 && exit 2; }

visible=${CUDA_VISIBLE_DEVICES-$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | paste -sd, || true)}
IFS=, read -ra gpus <<<"$visible"
jobs=${jobs:-${#gpus[@]}}
[[ $jobs =~ ^[1-9][0-9]*$ ]] || { echo "launch/local.sh: --jobs N, at least 1, is needed where no GPU is visible" >&2 && usage; }
each=$((${#gpus[@]} > jobs ? ${#gpus[@]} / jobs : 1))

list=$("$PYTHON" -m ddpm.main "${run[@]}" --list) # a mistake ends the script here, in the command's own words
total=$(wc -l <<<"$list")
mkdir -p "$workdir"

set -m # each run is a process group of its own: Ctrl-C comes to this script alone, which passes on a SIGTERM
slots=$(mktemp -u) && mkfifo "$slots" && exec 3<>"$slots" && rm "$slots"
for ((slot = 0; slot < jobs; slot++)); do echo "$slot" >&3; done

one() { # INDEX SLOT
  local code=0
  if ((${#gpus[@]})); then
    local mine=()
    for ((k = 0; k < each; k++)); do mine+=("${gpus[($2 * each + k) % ${#gpus[@]}]}"); done
    CUDA_VISIBLE_DEVICES=$(IFS=, && echo "${mine[*]}") && export CUDA_VISIBLE_DEVICES
  fi
  "$PYTHON" -m ddpm.main "${run[@]}" --index "$1" >>"$workdir/$1.log" 2>&1 </dev/null || code=$?
  echo "run $1: exit $code, $workdir/$1.log"
  echo "$2" >&3
  return "$code"
}

stopped='' started=()
trap 'stopped=yes; for pid in "${started[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done' INT TERM
for ((i = 0; i < total; i++)); do
  read -ru 3 slot || true # a signal may cut it short
  [[ ! $stopped ]] || break
  (trap : TERM && one "$i" "$slot") & # the subshell waits for its run, which saves
  started+=($!)
done

result=0
for pid in "${started[@]}"; do
  code=0
  wait "$pid" || code=$?
  while kill -0 "$pid" 2>/dev/null; do wait "$pid" && code=0 || code=$?; done # a signal cut the wait short
  # 75 says: the same command goes on; so it does from 143, stopped before there was anything to save. It is the answer unless a run failed.
  ((code == 0 || result == 1)) || result=$((code == 75 || code == 143 ? 75 : 1))
done
[[ ! $stopped || $result != 0 ]] || result=75
exit "$result"
