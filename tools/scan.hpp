#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cairn/checkpoint.hpp"

namespace cairn::tool {

/// Checks the digests of all tensors, or of those that are not 0 in `wanted` (by position, the same
/// on all ranks). Collective. Errors: corrupt, naming file, tensor and the rank that wrote the
/// damaged part.
void require_undamaged(const Comm& comm, const Manifest& manifest);
void require_undamaged(const Comm& comm, const Manifest& manifest,
                       const std::vector<std::uint64_t>& wanted);

/// Calls `body(start, count)` for flat element ranges of at most `window_bytes` that cover the
/// tensor.
template <class F>
void for_each_window(const TensorEntry& tensor, std::uint64_t window_bytes, F&& body) {
  const std::uint64_t total = element_count(tensor.shape);
  const std::uint64_t step = window_bytes / item_bytes(tensor.dtype);
  for (std::uint64_t at = 0; at < total; at += step) body(at, std::min(step, total - at));
}

}  // namespace cairn::tool
