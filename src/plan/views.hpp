#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cairn/manifest.hpp"

namespace cairn::detail {

// Tensors whose elements are those of other tensors, where these lie: nothing is moved. Where the
// result is not one dense run its layout is `pieces`. It has no digests: those of its sources are
// of other bytes. All Local. Errors: unsupported (compressed tensors, more than 2^20 dense runs).

/// The elements in `box`, as a tensor of that shape.
TensorEntry slice_of(const TensorEntry& tensor, const Box& box, std::string name);
/// The parts one behind the other along `dim`: all have one dtype, and one shape but for `dim`.
TensorEntry joined(const std::vector<const TensorEntry*>& parts, std::size_t dim, std::string name);
/// Row `i` along `dim` is row `order[i]` of `tensor`; `order` is a permutation.
TensorEntry permuted(const TensorEntry& tensor, std::size_t dim,
                     std::span<const std::uint64_t> order);

}  // namespace cairn::detail
