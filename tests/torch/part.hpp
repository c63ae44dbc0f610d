#pragma once

#include <optional>

#include "support/mpi_test.hpp"

namespace cairn::test {

/// The first `count` ranks; nothing on the others. Freed with the job. Collective.
inline std::optional<MPI_Comm> first_ranks(int count) {
  MPI_Comm part = MPI_COMM_NULL;
  MPI_Comm_split(world().raw(), world().rank() < count ? 0 : MPI_UNDEFINED, 0, &part);
  if (part == MPI_COMM_NULL) return std::nullopt;
  return part;
}

}  // namespace cairn::test
