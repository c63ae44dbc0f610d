# Sourced by the .sbatch files, with and without a scheduler: where things are, how programs start, and whether a job
# goes on later. docs/slurm.md tells the story and lists the CAIRN_* variables that a site may set.
# shellcheck shell=bash

# cairn::kExitRequeue: a trainer that saved and stopped early, and wants to go on.
readonly exit_requeue=85

say() { printf '== %s %s\n' "$(date '+%F %T')" "$*"; }

preempted=
program=
reminder=
# The launcher hands SIGUSR1 on to all ranks. SIGTERM goes on as SIGUSR1, because mpirun would kill the ranks on it.
preempt() {
  preempted=1
  say "signal $1: the program is to save and stop"
  [ -z "$program" ] || tell_program
}

# Again and again: a launcher that is still starting may lose a signal, and a trainer minds only the first.
tell_program() {
  kill -USR1 "$program" 2>/dev/null || return 0
  [ -z "$reminder" ] || return 0
  while sleep 3 && kill -USR1 "$program"; do :; done >/dev/null 2>&1 &
  reminder=$!
}
# From here on, not from the start of the program: a signal may come at any time.
trap 'preempt USR1' USR1
trap 'preempt TERM' TERM

export CAIRN_BIN=${CAIRN_BIN:-$CAIRN_ROOT/build/bin}
if [ -n "${CAIRN_SETUP:-}" ]; then
  set +eu  # modules and environments are seldom written for them
  # shellcheck source=/dev/null
  . "$CAIRN_SETUP"
  set -eu
fi
if [ -n "${CAIRN_LAUNCH:-}" ]; then
  read -r -a launch <<<"$CAIRN_LAUNCH"
elif [ -n "${SLURM_JOB_ID:-}" ]; then  # also in an allocation of salloc
  launch=(srun --mpi=pmix)
else
  launch=(mpirun --oversubscribe -n "${CAIRN_RANKS:-2}")
fi
restart=${CAIRN_RESTART_COUNT:-${SLURM_RESTART_COUNT:-0}}

# run PROGRAM...: on all ranks. Its exit code is in `code`; 85 where a signal came before the start.
run() {
  code=$exit_requeue
  [ -z "$preempted" ] || return 0
  "${launch[@]}" "$@" </dev/null &
  program=$!
  [ -z "$preempted" ] || tell_program
  # A signal ends the wait, not the program.
  while :; do
    code=0
    wait "$program" || code=$?
    kill -0 "$program" 2>/dev/null || break
  done
  program=
  [ -z "$reminder" ] || kill "$reminder" 2>/dev/null || true
}

# count_start RUN: ends the job where it was restarted CAIRN_MAX_STALLS times without a new checkpoint. The trainer counts
# its starts, too, but not those in which it does not get that far; the name makes the two one count.
count_start() {
  local code=0
  # Submitted by hand: somebody has looked at it.
  if [ "$restart" -eq 0 ] && [ "${CAIRN_PREEMPTED:-requeue}" = requeue ]; then rm -f "$1/.restarts"; fi
  export CAIRN_START=${SLURM_JOB_ID:-$(hostname)-$$}-$restart
  "$CAIRN_BIN/cairn" begin "$1" --max-restarts "${CAIRN_MAX_STALLS:-5}" </dev/null || code=$?
  case $code in
    0) ;;
    1)
      say "given up. See above why it ends; submit it again when that is solved."
      exit 1
      ;;
    *) say "this start is not counted (exit code $code of 'cairn begin')" ;;
  esac
}

# Whether a program that ended with this exit code is to be started again.
goes_on() {
  local wanted
  # Died of the signal before it was able to catch it.
  if [ "$1" -gt 128 ] && [ -n "$preempted" ]; then return 0; fi
  for wanted in ${CAIRN_REQUEUE_CODES:-$exit_requeue 138 143}; do
    [ "$1" -ne "$wanted" ] || return 0
  done
  return 1
}

# Whether a node of the job is lost. A launcher may end before Slurm knows of it; a step on all nodes tells in seconds.
node_is_lost() {
  local told
  if [ -n "${CAIRN_LOCAL:-}" ] || [ -z "${SLURM_JOB_NUM_NODES:-}" ]; then return 1; fi
  # It has to name the node: a step may fail for other reasons, too.
  told=$({ timeout 60 srun --overlap --mem=0 --mpi=none --nodes="$SLURM_JOB_NUM_NODES" \
    --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 true </dev/null 2>&1 || true; } |
    grep -m1 -e 'failed on node' -e 'Node failure on') || return 1
  say "a node of the job does not answer: $told"
}

# finish CODE: ends the job as its exit code says: done, requeued, or failed for good.
finish() {
  if [ "$1" -eq 0 ]; then
    say "finished"
    exit 0
  fi
  if ! goes_on "$1" && ! node_is_lost; then
    say "exit code $1: failed, not requeued"
    exit "$1"
  fi
  if [ "${CAIRN_PREEMPTED:-requeue}" = next ]; then
    say "stopped early; the next job of the chain goes on"
    exit 0
  fi
  if [ "${CAIRN_PREEMPTED:-requeue}" = last ]; then
    say "stopped early, and the chain is used up: the training is not done; start another chain"
    exit "$exit_requeue"
  fi
  [ -n "${CAIRN_LOCAL:-}" ] || requeue "$1"
  exit "$exit_requeue"
}

# Only a running job, and one that its time limit ended. Any other was cancelled, and a requeue would bring it back;
# or preempted without grace, and Slurm requeues it by itself.
requeue() {
  local id=$SLURM_JOB_ID state="" try
  # The number of one of an array's tasks is that of the whole array, and would requeue all of them.
  [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
  # A controller that is restarted does not answer for a while.
  for try in 1 2 3 4 5 6; do
    state=$(scontrol -o show job "$id") && [ -n "$state" ] && break
    [ "$try" -eq 6 ] || sleep 10
  done
  case $state in
    "") say "stopped early, but Slurm does not answer: submit it again" ;;
    *" JobState=RUNNING "* | *" Reason=TimeLimit "*)
      say "stopped early: requeued"
      trap '' TERM  # Slurm ends this start with it, scontrol as well, which then seems to have failed
      scontrol requeue "$id" && return
      say "this job can't be requeued (see docs/slurm.md): submit it again, or use jobs/chain.sh"
      ;;
    *) say "stopped early, because the job was ended from outside: left to Slurm" ;;
  esac
  exit "$1"
}

# train RUN FLAGS...: the trainer in that run directory, as often as it takes. Ends the job.
train() {
  local run=$1 trainer
  shift
  read -r -a trainer <<<"${CAIRN_TRAIN:-$CAIRN_BIN/train_lm}"
  mkdir -p "$run"
  say "job ${SLURM_JOB_ID:-local}, restart $restart, on ${SLURM_JOB_NODELIST:-$(hostname)}: ${trainer[*]} $* in $run"
  count_start "$run"
  run "${trainer[@]}" --dir "$run" "$@"
  [ "$code" -ne 0 ] || rm -f "$run/.restarts"
  finish "$code"
}
