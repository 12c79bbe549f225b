#!/usr/bin/env bash
# launch/tpu/down.sh NAME
# Deletes the slice, whatever runs there. What is in the bucket stays.
set -euo pipefail

if (($# != 1)); then
  echo "usage: launch/tpu/down.sh NAME" >&2
  exit 2
fi
gcloud compute tpus queued-resources delete "$1" --force --quiet
