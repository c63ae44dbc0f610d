#!/usr/bin/env bash
# Jobs in a row, each going on where the one before was stopped: where a site forbids requeueing, or a training takes
# longer than any time limit. The others wait for nothing when one has failed; those after the end of the training
# find nothing to do. The last one fails when it is stopped: the training is not done.
set -euo pipefail

if [ $# -lt 2 ] || ! [[ $1 =~ ^[1-9][0-9]*$ ]]; then
  cat >&2 <<'TEXT'
usage: jobs/chain.sh COUNT [OPTIONS OF sbatch...] jobs/train.sbatch [FLAGS OF THE TRAINER...]
  without sbatch, or with CAIRN_LOCAL=1, the options are those of jobs/run_local.sh
TEXT
  exit 2
fi
count=$1
shift
export CAIRN_PREEMPTED=next CAIRN_RUN_DIR=${CAIRN_RUN_DIR:-$PWD/runs/cairn-chain}
rm -f "$CAIRN_RUN_DIR/.restarts" # submitted by hand: somebody has looked at it

if [ -n "${CAIRN_LOCAL:-}" ] || ! command -v sbatch >/dev/null; then
  for ((i = 0; i < count; ++i)); do
    [ "$i" -lt $((count - 1)) ] || CAIRN_PREEMPTED=last
    "$(dirname "${BASH_SOURCE[0]}")/run_local.sh" --once "$@"
  done
  exit
fi
after=()
for ((i = 0; i < count; ++i)); do
  [ "$i" -lt $((count - 1)) ] || CAIRN_PREEMPTED=last
  id=$(sbatch --parsable --kill-on-invalid-dep=yes "${after[@]}" "$@")
  id=${id%%;*}
  echo "$id"
  after=("--dependency=afterok:$id")
done
