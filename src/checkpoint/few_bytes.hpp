#pragma once

#include <cstdint>
#include <vector>

#include "cairn/manifest.hpp"

namespace cairn::detail {

/// Whether two tensors of one dtype and shape, in the manifest's files, hold the same bytes. Reads
/// them where neither places nor digests tell. Local. Errors: corrupt, io, mismatch.
bool same_content(const Manifest& manifest, const TensorEntry& a, const TensorEntry& b);

/// The elements of a tensor of i64 or i32, at most a million. Local. Errors: usage (another dtype,
/// or larger), corrupt, io, mismatch.
std::vector<std::int64_t> integers_in(const Manifest& manifest, const TensorEntry& tensor);

}  // namespace cairn::detail
