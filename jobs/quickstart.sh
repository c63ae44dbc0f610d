#!/usr/bin/env bash
# The main job, end to end: train on 4 ranks, lose one in the middle of a save, resume on 2, finish,
# and look at what was saved. Ends with a check of each promise; exit code 1 when one was not kept.
set -euo pipefail

# shellcheck source=jobs/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
  echo "usage: jobs/quickstart.sh    run directory: \$CAIRN_RUN_DIR, by default build/quickstart-run"
  exit 0
fi

run=${CAIRN_RUN_DIR:-$CAIRN_BUILD/quickstart-run}
train=("$CAIRN_BIN/train_lm" --parallel tp --layers 2 --width 64 --heads 4 --context 64 --batch 8
  --steps 90 --save-every 30 --log-every 10 --dir "$run")
first=$run/step-00000030.h5
broken=$run/step-00000060.h5
last=$run/step-00000090.h5

summary=()
failed=0

say() { printf '\n== %s\n' "$*"; }

# promise TEXT COMMAND...: notes whether the command succeeded.
promise() {
  local text=$1
  shift
  if "$@" >/dev/null 2>&1; then
    summary+=("kept    $text")
  else
    summary+=("BROKEN  $text")
    failed=1
  fi
}

# show LOG COMMAND...: runs the command, prints and keeps what it says, and gives its exit code in `code`.
show() {
  local log=$logs/$1
  shift
  code=0
  "$@" >"$log" 2>&1 || code=$?
  cat "$log"
}

# digests LOG: the digests of parameters and optimizer state right after a load.
digests() { sed -n 's/^resumed .*\(params_digest=[0-9a-f]* state_digest=[0-9a-f]*\) .*/\1/p' "$logs/$1"; }

prepare_run_directory() {
  # Only a directory that a quickstart made is removed.
  if [ -e "$run" ] && [ ! -e "$run/.quickstart" ] && [ -n "$(ls -A "$run" 2>/dev/null)" ]; then
    echo "quickstart: $run exists and was not made by a quickstart; remove it or set CAIRN_RUN_DIR" >&2
    exit 2
  fi
  rm -rf "$run"
  mkdir -p "$run"
  touch "$run/.quickstart"
}

train_and_lose_a_rank() {
  say "Training a small Transformer on 4 ranks, its weights divided over them (tensor parallel)." \
    "Every 30 steps all ranks save into one HDF5 file. Rank 2 will be killed (SIGKILL) in the middle" \
    "of the save of step 60."
  show lost.log mpi_run 4 "${train[@]}" --die-at 60:2
  promise "the job died of SIGKILL in the save of step 60 (exit code $code)" test "$code" -ne 0 -a \
    -n "$(grep -E 'signal 9' "$logs/lost.log")"
  say "The job is dead (exit code $code). What is in the run directory (a hidden .partial file is an attempt" \
    "that never became a checkpoint):"
  ls -lA "$run"
  promise "the half-written step 60 was not published" test ! -e "$broken"
  promise "step 30 is whole: cairn verify finds no defect" "$CAIRN_BIN/cairn" verify "$first"
}

resume_on_two_ranks() {
  say "Loading that checkpoint once on the 4 ranks that saved it, only to note its digests."
  show four.log mpi_run 4 "${train[@]}" --resume "$first" --steps 30
  promise "the 4 ranks that saved step 30 can load it" test "$code" -eq 0
  say "Resuming on 2 ranks from the newest committed checkpoint, and training to the end. Each rank" \
    "now holds twice as much of every divided weight, and of the optimizer's state for it."
  show resumed.log mpi_run 2 "${train[@]}" --resume auto
  promise "2 ranks resumed from step 30, the newest committed checkpoint" \
    grep -E "^resumed step=30 .* from .*step-00000030\.h5 \(saved by 4 ranks, now 2" "$logs/resumed.log"
  promise "2 ranks hold exactly the tensors that 4 ranks saved (digests of weights and Adam state)" \
    test -n "$(digests four.log)" -a "$(digests four.log)" = "$(digests resumed.log)"
  promise "the resumed job finished all 90 steps" test "$code" -eq 0 -a \
    -n "$(grep -E '^done step=90 loss=' "$logs/resumed.log")"
  promise "the last step is saved" test -e "$last"
}

look_inside() {
  say "cairn inspect: what the last checkpoint holds."
  show inspect.log "$CAIRN_BIN/cairn" inspect "$last"
  promise "cairn inspect shows the last checkpoint" test "$code" -eq 0
  say "cairn diff of steps 30 and 90, shared by 2 ranks: the training changed the weights."
  show diff.log mpi_run 2 "$CAIRN_BIN/cairn" diff "$first" "$last"
  promise "cairn diff reports that the two steps differ (exit code 1)" test "$code" -eq 1
  say "cairn verify: every byte against its digest."
  show verify.log "$CAIRN_BIN/cairn" verify "$last"
  promise "cairn verify finds no defect in the last checkpoint" test "$code" -eq 0
  say "The checkpoint is plain HDF5: h5py reads one weight, whole, whoever wrote its parts."
  show h5py.log "$CAIRN_PYTHON" - "$last" <<'PYTHON'
import sys

import h5py
import numpy

with h5py.File(sys.argv[1], "r") as checkpoint:
    name = "model/block0.attn.q_proj.weight"
    weight = checkpoint[name][:]
    print(f"{name}: shape {weight.shape}, {weight.dtype}, mean {weight.mean():.6f}, "
          f"deviation {weight.std():.6f}")
    assert weight.shape == (64, 64) and weight.dtype == numpy.float32
    assert numpy.isfinite(weight).all() and (weight.std(axis=1) > 0).all()
PYTHON
  promise "h5py reads a divided weight as one array of its global shape" test "$code" -eq 0
}

"$CAIRN_ROOT/jobs/build.sh" cairn-tool cairn-bench train_lm
for program in "$CAIRN_BIN/train_lm" "$CAIRN_BIN/cairn"; do
  [ -x "$program" ] || { echo "quickstart: $program was not built" >&2; exit 2; }
done
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
prepare_run_directory
train_and_lose_a_rank
resume_on_two_ranks
look_inside

say "Summary (run directory: $run)"
printf '%s\n' "${summary[@]}"
if [ "$failed" -ne 0 ]; then
  echo "At least one promise was not kept."
  exit 1
fi
echo "All promises were kept."
