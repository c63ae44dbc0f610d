#pragma once

#include "cairn/manifest.hpp"

namespace cairn::detail {

/// Checks that the extents of a tensor tile it: each element in exactly one. O(n log n) in their
/// number. Errors: mismatch, naming the tensor and what is wrong.
void check_tiling(const TensorEntry& tensor);

}  // namespace cairn::detail
