#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "cairn/comm.hpp"
#include "cairn/export.hpp"

namespace cairn::detail {

/// A maximum over ranks, element by element, that goes on while the program does. One at a time.
/// `comm` must outlive it. The destructor does not communicate: it leaves what is on its way to
/// MPI, with its memory.
class CAIRN_EXPORT PendingMax {
 public:
  explicit PendingMax(const Comm& comm) : comm_(comm) {}
  ~PendingMax();
  PendingMax(const PendingMax&) = delete;
  PendingMax& operator=(const PendingMax&) = delete;

  bool is_posted() const { return request_ != MPI_REQUEST_NULL; }
  /// Begins. Collective: all ranks post, at the same place among their collectives.
  void post(std::span<const std::uint64_t> values);
  /// Lets MPI work on it. Local.
  void nudge();
  /// The result. Collective. Errors: timeout, as of any wait of the communicator.
  std::vector<std::uint64_t> wait(std::string_view step);

 private:
  const Comm& comm_;
  MPI_Request request_ = MPI_REQUEST_NULL;
  std::vector<std::byte> buffer_;
};

}  // namespace cairn::detail
