#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cairn/manifest.hpp"

namespace cairn::detail {

/// The table in `/index` (docs/format.md, "Index"): names, dtypes, shapes, offsets, extents and
/// digests of all tensors as fixed-size records. Its size depends on the structure alone.
std::uint64_t index_bytes(const std::vector<TensorEntry>& tensors);
std::vector<std::byte> encode_index(const std::vector<TensorEntry>& tensors);
/// Errors: corrupt, unsupported. Checks every reference and that boxes lie in their tensors; sizes
/// are bounded by `bytes` before anything is allocated.
std::vector<TensorEntry> decode_index(std::span<const std::byte> bytes);

}  // namespace cairn::detail
