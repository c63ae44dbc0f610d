#pragma once

#include <filesystem>

#include "cairn/checkpoint.hpp"
#include "rounds.hpp"

namespace cairn::bench {

/// Converts the checkpoint `source` to the container `target`, and copies its bytes to `raw` with
/// an fsync, as `cp` and `sync` do, both in turn. `source` is one file. Leaves neither.
/// Collective. Errors: those of convert_checkpoint and of the copy.
Times run_conversions(const Comm& comm, const Options& options, const Manifest& source,
                      const std::filesystem::path& target, const std::filesystem::path& raw);

}  // namespace cairn::bench
