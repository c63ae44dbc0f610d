#pragma once

#include <filesystem>
#include <vector>

#include "cairn/comm.hpp"

namespace cairn::detail {

/// Makes rank 0's files there on every rank: a rank that does not see the directory of rank 0 gets
/// them, with the same paths, by rank 0's sending them to one rank of each such node. What a node
/// has already, by its SHA-256, is not sent. Collective. Errors: io, corrupt.
void spread_files(const Comm& comm, std::vector<std::filesystem::path> files_of_root);

}  // namespace cairn::detail
