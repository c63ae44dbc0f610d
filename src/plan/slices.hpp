#pragma once

#include <cstdint>
#include <vector>

#include "cairn/placement.hpp"

namespace cairn::detail {

/// Cuts a box into boxes of at most `most_elements` (at least 1) elements, in row-major order, each
/// contiguous in the dense row-major bytes of `box`. A box that fits is returned as it is.
std::vector<Box> slices_of(const Box& box, std::uint64_t most_elements);

}  // namespace cairn::detail
