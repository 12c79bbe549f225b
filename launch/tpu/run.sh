#!/usr/bin/env bash
# launch/tpu/run.sh NAME --config FILE --workdir gs://BUCKET/DIR [flags of ddpm.main]
# Copies the last commit to all workers, installs it, and starts the run there; a run that goes on saves first. The run outlives
# this command: each worker writes train.log, and at the end its exit code to train.exit.
set -euo pipefail

if (($# < 2)); then
  echo "usage: launch/tpu/run.sh NAME --config FILE --workdir gs://BUCKET/DIR [flags of ddpm.main]" >&2
  exit 2
fi
name=$1 && shift
printf -v flags ' %q' "$@"
code=$(mktemp) && trap 'rm -f "$code"' EXIT
git -C "$(dirname "$0")/../.." archive --format=tar.gz --output="$code" HEAD

# The environment comes from uv, as the image's Python is older than ddpm takes. Python's name stands in brackets so that pkill and
# pgrep do not find the shell that asks; two processes on one TPU would block each other.
read -r -d '' install <<'REMOTE' || true
set -e
while pkill -TERM -f '[d]dpm\.main'; do sleep 5; done
rm -f train.exit
mkdir -p ddpm && tar -xzf ddpm.tar.gz -C ddpm && cd ddpm
python3 -m pip install --quiet --user uv
[ -d .venv ] || python3 -m uv venv --quiet --python 3.12 .venv
python3 -m uv pip install --quiet --constraint requirements.txt --editable '.[gcs]' 'jax[tpu]'
REMOTE
start="cd ddpm && nohup sh -c '.venv/bin/python -m ddpm.main \"\$@\" >>../train.log 2>&1; echo \$? >../train.exit' ddpm$flags"

gcloud compute tpus tpu-vm scp "$code" "$name:ddpm.tar.gz" --worker=all
gcloud compute tpus tpu-vm ssh "$name" --worker=all --command="$install"
gcloud compute tpus tpu-vm ssh "$name" --worker=all --command="$start >/dev/null 2>&1 </dev/null &"
