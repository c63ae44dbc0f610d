#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cairn/comm.hpp"
#include "cairn/engine.hpp"
#include "cairn/manifest.hpp"

namespace cairn::detail {

/// A run of a file that every rank wants.
struct ReplicatedRun {
  std::uint32_t file = 0;  ///< index into Manifest::files
  std::uint64_t offset = 0;
  std::byte* data = nullptr;  ///< this rank's memory for it
  std::uint64_t bytes = 0;
};

/// How the bytes came to this rank.
struct ReplicatedResult {
  std::uint64_t bytes_read = 0;      ///< from the file, by this rank
  std::uint64_t bytes_received = 0;  ///< from ranks that read them
};

/// Fills every rank's memory for all of `runs`, which lie in the same places in the same order on
/// all ranks. `automatic` reads a part in each of the two ways, each rank everything or each byte
/// once and then broadcast, and goes on in the faster one; what is too little for that is read by
/// each rank. Collective. Errors: those of Reader; timeout.
ReplicatedResult read_replicated(const Comm& comm, const Manifest& manifest,
                                 std::span<const ReplicatedRun> runs, BroadcastReplicas how);

}  // namespace cairn::detail
