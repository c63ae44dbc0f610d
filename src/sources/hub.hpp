#pragma once

#include "cairn/source.hpp"
#include "sources/fetch.hpp"

namespace cairn::detail {

/// Fetches the file, or the index and the shards that it names, of one commit. A directory of the
/// cache holds them under their own names. Local. Errors: usage, unsafe (the index names a path
/// outside the model), corrupt (no index), and those of fetch_cached.
Fetched fetch_hub(const HubSource& source, const std::filesystem::path& cache_dir,
                  const FetchLimits& limits, FetchState& state);

}  // namespace cairn::detail
