#include "mpi/nodes.hpp"

#include <limits>

#include "mpi/comm_state.hpp"

namespace cairn::detail {

// MPI splits communicators without a deadline, so all ranks meet with one first, as in Comm::close.

bool is_first_on_node(const Comm& comm, bool candidate) {
  comm.all_equal(0);
  MPI_Comm node = MPI_COMM_NULL;
  check_mpi(
      MPI_Comm_split_type(comm.raw(), MPI_COMM_TYPE_SHARED, comm.rank(), MPI_INFO_NULL, &node),
      "MPI_Comm_split_type");
  const int mine = candidate ? comm.rank() : std::numeric_limits<int>::max();
  int lowest = mine;
  check_mpi(MPI_Allreduce(&mine, &lowest, 1, MPI_INT, MPI_MIN, node), "MPI_Allreduce");
  check_mpi(MPI_Comm_free(&node), "MPI_Comm_free");
  return candidate && lowest == comm.rank();
}

std::optional<Comm> with_members(const Comm& comm, bool member) {
  comm.all_equal(0);
  const bool inside = member || comm.is_root();
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(comm.raw(), inside ? 0 : MPI_UNDEFINED, comm.rank(), &part),
            "MPI_Comm_split");
  if (!inside) return {};
  std::optional<Comm> members(std::in_place, part, comm.deadline());
  check_mpi(MPI_Comm_free(&part), "MPI_Comm_free");
  return members;
}

}  // namespace cairn::detail
