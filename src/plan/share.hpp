#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cairn/manifest.hpp"

namespace cairn::detail {

/// A tensor's extents and, by extent, the position of the group of ranks that holds it.
struct HeldTensor {
  TensorEntry entry;
  std::vector<std::size_t> group;
};

/// Gives every extent a writer among its holders, so that all ranks write about the same number of
/// bytes: what one rank alone holds it writes; then each group of ranks fills up its members to one
/// level, and its extents, end to end, are cut at the members' shares. Extents of 64 KiB and more
/// are cut at 4096-byte steps of their dense bytes into several extents; smaller ones stay whole.
/// `groups`: ranks, ascending. Deterministic. Local.
void share_extents(std::span<HeldTensor> tensors, std::span<const std::vector<int>> groups,
                   std::size_t ranks);

}  // namespace cairn::detail
