#pragma once

#include <filesystem>

#include "checkpoint/convert.hpp"

namespace cairn::detail {

/// Writes the container `source` to `target` so that it needs no other file: tensors, statistics,
/// documents, step and number of writers are those of the source, and so is who wrote which part.
/// Compressed tensors are written plain. All digests of the source are checked, and what was
/// written is read back; the target appears when it is whole. Of `options`, `overwrite`,
/// `memory_bytes`, `durable` and `progress` count. Collective; arguments are the same on all ranks.
/// Errors: usage (the source is no container, the target exists), corrupt, io, timeout.
ConvertResult flatten_checkpoint(const Comm& comm, const Manifest& source,
                                 const std::filesystem::path& target,
                                 const ConvertOptions& options);

}  // namespace cairn::detail
