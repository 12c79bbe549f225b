#!/usr/bin/env bash
# launch/tpu/watch.sh NAME TYPE [flags of gcloud] -- --config FILE --workdir gs://BUCKET/DIR [flags of ddpm.main]
# up.sh and run.sh, and again whenever the slice is taken away or the run left with 75, until the run is done. Keep it running
# (tmux, a small VM): it costs a look a minute. The slice is left as it is at the end: launch/tpu/down.sh NAME.
set -euo pipefail
here=$(dirname "$0")

up=()
while (($#)) && [[ $1 != -- ]]; do up+=("$1") && shift; done
if ((${#up[@]} < 2 || $# < 3)); then
  echo "usage: launch/tpu/watch.sh NAME TYPE [flags of gcloud, such as --spot] -- --config FILE --workdir gs://BUCKET/DIR" >&2
  exit 2
fi
name=${up[0]} && shift

failures=0 # of the run, on a slice that was there
while true; do
  state=$(gcloud compute tpus queued-resources describe "$name" --format='value(state.state)') || state=NONE
  run=''
  if [[ $state == ACTIVE ]]; then # the answer is an exit code, running, gone (the machine started anew) or, of no answer, nothing
    run=$(gcloud compute tpus tpu-vm ssh "$name" --worker=0 \
      --command="cat train.exit 2>/dev/null || { pgrep -f '[d]dpm\.main' >/dev/null && echo running; } || echo gone") || true
  fi
  echo "$(date +%T) $name: $state ${run:+run: $run}"
  case $state:$run in
    NONE:) if "$here/up.sh" "${up[@]}"; then "$here/run.sh" "$name" "$@" || true; fi ;;
    FAILED: | SUSPEND*:) "$here/down.sh" "$name" || true ;; # a slice that was taken away never comes back by itself
    ACTIVE:0) exit 0 ;;
    ACTIVE:gone | ACTIVE:75) "$here/run.sh" "$name" "$@" || true ;;
    ACTIVE:[1-9]*) # also when another worker was taken away, which the state says later
      ((++failures < 4)) || { echo "$name: the run failed four times: see train.log" >&2 && exit 1; }
      "$here/run.sh" "$name" "$@" || true
      ;;
  esac
  sleep "${POLL_SECONDS:-60}"
done
