#pragma once

#include <filesystem>

#include "cairn/comm.hpp"
#include "cairn/export.hpp"

namespace cairn::detail {

/// The checkpoint that `path` means: a file itself, or the newest committed checkpoint of a run
/// directory. Rank 0 looks, and its path counts; the answer is the same on all ranks. Collective.
/// Errors: not_found (a run directory without a committed checkpoint), unsupported (neither file
/// nor directory; newer format), io. A path that does not exist is returned as it is.
CAIRN_EXPORT std::filesystem::path resolve_local(const Comm& comm,
                                                 const std::filesystem::path& path);

}  // namespace cairn::detail
