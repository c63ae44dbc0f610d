#include "mpi/nodes.hpp"

#include <limits>
#include <vector>

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

std::optional<Comm> part_of(const Comm& comm, std::optional<int> part) {
  comm.all_equal(0);
  MPI_Comm split = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(comm.raw(), part.value_or(MPI_UNDEFINED), comm.rank(), &split),
            "MPI_Comm_split");
  if (!part) return {};
  std::optional<Comm> members(std::in_place, split, comm.deadline());
  check_mpi(MPI_Comm_free(&split), "MPI_Comm_free");
  std::vector<std::uint64_t> numbers(static_cast<std::size_t>(members->size()), 0);
  numbers[static_cast<std::size_t>(members->rank())] =
      static_cast<std::uint64_t>(comm.state_->number(comm.rank()));
  members->all_reduce_max(std::span<std::uint64_t>(numbers));
  members->state_->numbers.assign(numbers.begin(), numbers.end());
  return members;
}

std::optional<Comm> with_members(const Comm& comm, bool member) {
  return part_of(comm, member || comm.is_root() ? std::optional(0) : std::nullopt);
}

}  // namespace cairn::detail
