# Sourced by the scripts of jobs/ and tests/: where things are, and how MPI programs are started here.
# shellcheck shell=bash

CAIRN_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CAIRN_BUILD=$CAIRN_ROOT/build
export CAIRN_BIN=${CAIRN_BIN:-$CAIRN_BUILD/bin}
# Debian's interpreter: h5py and numpy come from its packages, and another python3 may be first in PATH.
export CAIRN_PYTHON=/usr/bin/python3

# Open MPI refuses root unless told twice, and binds ranks to cores that a small machine does not have.
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_mpi_yield_when_idle=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# mpi_run N COMMAND...: the command on N ranks of this machine.
mpi_run() {
  local ranks=$1
  shift
  mpirun --oversubscribe -n "$ranks" "$@" </dev/null
}
