#pragma once

#include <filesystem>

#include "checkpoint/convert.hpp"

namespace cairn::detail {

/// Writes a container as `source` tells of one, whatever files its tensors lie in: tensors,
/// statistics, documents, step and number of writers are those of the source, and so is who wrote
/// which part; of tensors that are put together of others, rank 0. Compressed tensors are written
/// plain. All digests of the source are checked, and what was written is read back; the
/// target appears when it is whole. Of `options`, `overwrite`, `memory_bytes`, `casts`, `durable`
/// and `progress` count; errors begin with `verb`. Collective; arguments are the same on all ranks.
/// Errors: usage (the target exists), corrupt, io, timeout.
ConvertResult rewrite_container(const Comm& comm, const char* verb, const Manifest& source,
                                const std::filesystem::path& target, const ConvertOptions& options);

}  // namespace cairn::detail
