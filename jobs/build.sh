#!/usr/bin/env bash
# Sets this machine up and builds everything, or the targets that are named, into build/. Quick when
# nothing changed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
./jobs/setup.sh

# A folder configured elsewhere (a copied tree) can't be built here.
cache=build/CMakeCache.txt
if [ -f "$cache" ] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" "$cache"; then
  echo "build: build/ belongs to another tree; it is configured anew"
  rm -rf "$cache" build/CMakeFiles
fi
# LibTorch's headers cost more than 1 GB of memory per compiler.
# nproc counts OpenMP's threads where OMP_NUM_THREADS is set, as jobs/env.sh does for the ranks.
jobs=$(env -u OMP_NUM_THREADS nproc)
memory_gb=$(awk '/^MemAvailable:/ {print int($2 / 1048576)}' /proc/meminfo)
limit=$((memory_gb / 2 > 0 ? memory_gb / 2 : 1))
[ "$jobs" -le "$limit" ] || jobs=$limit

cmake --preset dev --log-level=WARNING </dev/null
targets=()
[ $# -eq 0 ] || targets=(--target "$@")
cmake --build --preset dev -j "${CAIRN_JOBS:-$jobs}" "${targets[@]}" </dev/null
