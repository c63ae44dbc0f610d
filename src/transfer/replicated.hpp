#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cairn/comm.hpp"
#include "cairn/engine.hpp"
#include "cairn/manifest.hpp"
#include "transfer/engine.hpp"

namespace cairn::detail {

/// How the bytes came to this rank.
struct ReplicatedResult {
  std::uint64_t bytes_read = 0;      ///< from the file, by this rank
  std::uint64_t bytes_received = 0;  ///< from ranks that read them
};

/// Fewer bytes than this are read by each of `ranks` ranks.
std::uint64_t least_to_share(std::size_t ranks, BroadcastReplicas how);

/// Fills every rank's memory for all of `pieces`, which hold the same, in the same order, on all
/// ranks of `comm`. `automatic` reads a part in each of the two ways, each rank everything or each
/// byte once and then broadcast, and goes on in the faster one; what is too little for that is read
/// by each rank. Collective. Errors: those of Reader; timeout.
ReplicatedResult read_replicated(const Comm& comm, const Manifest& manifest,
                                 std::span<const ReadItem> pieces, BroadcastReplicas how);

}  // namespace cairn::detail
