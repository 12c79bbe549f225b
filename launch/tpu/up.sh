#!/usr/bin/env bash
# launch/tpu/up.sh NAME TYPE [flags of gcloud]     such as: launch/tpu/up.sh run1 v5litepod-16 --spot
# Asks for a pod slice and waits until it is there. Once: gcloud config set project ...; gcloud config set compute/zone ...
set -euo pipefail

if (($# < 2)); then
  echo "usage: launch/tpu/up.sh NAME TYPE [flags of gcloud, such as --spot]; TYPE such as v5litepod-16, v5p-128, v6e-16" >&2
  exit 2
fi
name=$1 type=$2 && shift 2
case $type in
  v5lite*) version=v2-alpha-tpuv5-lite ;;
  v5p-*) version=v2-alpha-tpuv5 ;;
  v6e-*) version=v2-alpha-tpuv6e ;;
  *) version=tpu-ubuntu2204-base ;; # v4 and older
esac

gcloud compute tpus queued-resources create "$name" --node-id="$name" --accelerator-type="$type" \
  --runtime-version="$version" "$@"
while true; do
  state=$(gcloud compute tpus queued-resources describe "$name" --format='value(state.state)')
  echo "$(date +%T) $name: $state"
  case $state in
    ACTIVE) exit 0 ;;
    FAILED | SUSPEND*) exit 1 ;;
  esac
  sleep "${POLL_SECONDS:-60}"
done
