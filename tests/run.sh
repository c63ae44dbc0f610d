#!/usr/bin/env bash
# Builds cairn and runs its tests: ./tests/run.sh [TIER...]. Without a tier all of them.
set -euo pipefail

tiers=(unit mpi fault cli formats sources torch package cluster bench)

usage() {
  echo "usage: ./tests/run.sh [TIER...]   tiers: ${tiers[*]}; without one, all" >&2
}

selected=()
for tier in "$@"; do
  case " ${tiers[*]} " in
    *" $tier "*) selected+=("$tier") ;;
    *)
      [ "$tier" = -h ] || [ "$tier" = --help ] || echo "run.sh: '$tier' is no tier" >&2
      usage
      [ "$tier" = -h ] || [ "$tier" = --help ] || exit 2
      exit 0
      ;;
  esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=jobs/env.sh
. jobs/env.sh
./jobs/build.sh

# Most of the tests' time would be Open MPI's: looking for other networks when ranks start, and a second
# between two signals when one of them ends with an error.
export OMPI_MCA_pml=ob1 OMPI_MCA_odls_base_sigkill_timeout=0
# What jobs/packages.txt installs is here: a test that lacks it fails instead of skipping.
export CAIRN_PACKAGES_INSTALLED=1

if [ "${#selected[@]}" -eq 0 ]; then
  choice=()
else
  choice=(-L "^($(IFS='|' && echo "${selected[*]}"))\$")
fi
# Every test names its PROCESSORS, so that ranks of two tests do not compete for the same cores.
exec ctest --test-dir build --output-on-failure --no-tests=error -j "$(env -u OMP_NUM_THREADS nproc)" "${choice[@]}" </dev/null
