#!/usr/bin/env bash
# Runs a job of this folder on this machine, without a scheduler, and starts it again as Slurm would requeue it.
set -euo pipefail
set -m  # each job is a process group of its own: Ctrl-C reaches this script, and the job by way of it

usage() {
  cat >&2 <<'TEXT'
usage: jobs/run_local.sh [-n RANKS] [--array=FIRST-LAST] [--once] JOB.sbatch [ARGUMENTS...]
  -n RANKS              of the MPI program; by default $CAIRN_RANKS, or 2
  --array=FIRST-LAST    one job after the other with that SLURM_ARRAY_TASK_ID
  --once                not again when the job was preempted or killed
SIGUSR1 preempts the job: it saves, stops and starts again. SIGTERM and Ctrl-C: it saves and stops.
TEXT
  exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=jobs/env.sh
. "$root/jobs/env.sh"

again=1 first='' last=''
while [ $# -gt 0 ]; do
  case $1 in
    -n) CAIRN_RANKS=${2:?-n needs a number} && shift ;;
    --array=*-*) first=${1#*=} last=${1##*-} && first=${first%-*} ;;
    --once) again= ;;
    -*) usage ;;
    *) break ;;
  esac
  shift
done
[ -f "${1:-}" ] || usage
export CAIRN_LOCAL=1 CAIRN_ROOT CAIRN_RANKS=${CAIRN_RANKS:-2}

job=
stopped=
# shellcheck disable=SC2317  # called by the traps
forward() { [ -z "$job" ] || kill -USR1 "$job" 2>/dev/null || true; }
trap forward USR1
trap 'stopped=1; forward' TERM INT

# run_job JOB ARGUMENTS...: until it is finished or has failed for good; its exit code is in `code`.
run_job() {
  local restart=0
  while :; do
    code=0
    CAIRN_RESTART_COUNT=$restart bash "$@" </dev/null &
    job=$!
    [ -z "$stopped" ] || forward
    while :; do
      code=0
      wait "$job" || code=$?
      kill -0 "$job" 2>/dev/null || break
    done
    job=
    case $code in
      85) ;;
      137) ;;  # killed, as with the loss of a node, after which Slurm requeues by itself
      138) ;;  # SIGUSR1 came before the job could catch it
      *) return ;;
    esac
    if [ -z "$again" ] || [ -n "$stopped" ]; then return; fi
    restart=$((restart + 1))
  done
}

if [ -z "$first" ]; then
  run_job "$@"
  exit "$code"
fi
worst=0
for ((task = first; task <= last; ++task)); do
  export SLURM_ARRAY_TASK_ID=$task
  run_job "$@"
  [ "$code" -le "$worst" ] || worst=$code
  [ -z "$stopped" ] || break
done
exit "$worst"
