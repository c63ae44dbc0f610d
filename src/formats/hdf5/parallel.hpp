#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "cairn/comm.hpp"
#include "cairn/manifest.hpp"
#include "mpi/io_hints.hpp"

namespace cairn::detail {

/// A box of a dataset and its dense row-major bytes in memory.
struct BoxTransfer {
  std::size_t tensor = 0;  ///< position in the table of tensors
  Box box;
  std::byte* data = nullptr;
};

enum class Direction : std::uint8_t { read, write };

/// How the library is used. The same on all ranks.
struct ParallelIo {
  bool collective = true;  ///< transfers of data; metadata writes always are
  HintMap hints;
  std::chrono::milliseconds watchdog{};  ///< limit of Watchdog; zero: none
};

/// Moves this rank's boxes through parallel HDF5: MPI-IO driver, collective metadata writes, and
/// collective or independent data transfers. Collective on `comm`; every rank passes the same
/// `tensors`, any number of its own boxes (none is fine), each below 2 GiB and in ascending order
/// of `tensor`.
///
/// A parallel open that fails on one rank only hangs the others: the caller has made sure that
/// every rank can open `path`. The file is open only inside the call. A rank whose transfer fails
/// goes on with empty selections, so that no other waits for it in the library; after a failure the
/// file is abandoned, not closed. A rank that waits in the library for one that never comes ends
/// the job (Watchdog). Returns the hints in force, as MPI tells them. Errors: usage (hints), io,
/// corrupt, the same on all ranks.
HintMap transfer_boxes(const Comm& comm, const std::filesystem::path& path,
                       std::span<const TensorEntry> tensors, std::span<const BoxTransfer> boxes,
                       Direction direction, const ParallelIo& io);

}  // namespace cairn::detail
