#pragma once

#include "cairn/comm.hpp"
#include "sources/fetch.hpp"

namespace cairn::detail {

/// Makes rank 0's files there on every rank: a rank that does not see the cache of rank 0 gets
/// them, with the same paths, by rank 0's sending them to one rank of each such node. What a node
/// has already, by its SHA-256, is not sent. May take long: the ranks meet several times a second,
/// and the TimeLimit of the calling thread ends it. Collective; rank 0's `fetched` counts. Errors:
/// io, corrupt, timeout.
void spread_files(const Comm& comm, Fetched fetched_by_root);

}  // namespace cairn::detail
