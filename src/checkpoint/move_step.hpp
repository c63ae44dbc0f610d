#pragma once

#include <span>

#include "cairn/checkpoint.hpp"
#include "transfer/engine.hpp"

namespace cairn::detail {

/// Fills what needs no conversion, and counts in `result` how the bytes came to this rank. `kind`
/// is that of the engine. Collective. Errors: corrupt, io, timeout.
void move_straight(const Comm& comm, Engine& engine, EngineKind kind, const LoadOptions& options,
                   const Manifest& manifest, std::span<const ReadItem> items, LoadResult& result);

}  // namespace cairn::detail
