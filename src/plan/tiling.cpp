#include "plan/tiling.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/throw.hpp"

namespace cairn::detail {
namespace {

/// Flat ranges tile a tensor when, sorted, each starts where the one before ends.
void check_flat_tiling(const TensorEntry& tensor) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  for (const Extent& extent : tensor.extents) {
    ranges.emplace_back(extent.box.start[0], extent.box.count[0]);
  }
  std::sort(ranges.begin(), ranges.end());
  std::uint64_t end = 0;
  for (const auto& [start, count] : ranges) {
    if (start != end) {
      fail(Errc::mismatch, "tensor '{}': its flat ranges {} at element {}", tensor.name,
           start < end ? "overlap" : "leave a gap", std::min(start, end));
    }
    end = start + count;
  }
  if (end != element_count(tensor.shape)) {
    fail(Errc::mismatch, "tensor '{}': its flat ranges end at element {} of {}", tensor.name, end,
         element_count(tensor.shape));
  }
}

/// The corners of a box with the sign of the mixed difference of its indicator function.
void add_corners(const Box& box, const std::vector<std::size_t>& dims, int sign,
                 std::vector<std::pair<Shape, int>>& corners) {
  for (std::size_t mask = 0; mask < (std::size_t{1} << dims.size()); ++mask) {
    Shape corner;
    int corner_sign = sign;
    for (std::size_t i = 0; i < dims.size(); ++i) {
      const bool far = (mask >> i & 1) != 0;
      corner.push_back(box.start[dims[i]] + (far ? box.count[dims[i]] : 0));
      if (far) corner_sign = -corner_sign;
    }
    corners.emplace_back(std::move(corner), corner_sign);
  }
}

}  // namespace

void check_tiling(const TensorEntry& tensor) {
  if (element_count(tensor.shape) == 0) return;
  if (tensor.placement == Placement::Kind::flat) return check_flat_tiling(tensor);
  if (tensor.extents.size() == 1 && tensor.extents.front().box == Box::whole(tensor.shape)) {
    return;
  }

  // Boxes tile the tensor exactly when their indicator functions add up to the tensor's; the mixed
  // difference of an indicator is its signed corners, and taking it loses nothing.
  std::vector<std::size_t> dims;  // dimensions in which some box is not whole
  for (std::size_t d = 0; d < tensor.shape.size(); ++d) {
    const bool cut =
        std::any_of(tensor.extents.begin(), tensor.extents.end(),
                    [&](const Extent& e) { return e.box.count[d] != tensor.shape[d]; });
    if (cut) dims.push_back(d);
  }
  constexpr std::size_t kMostCutDimensions = 8;
  if (dims.size() > kMostCutDimensions) {
    fail(Errc::unsupported, "tensor '{}' is cut along {} dimensions; at most {} are supported",
         tensor.name, dims.size(), kMostCutDimensions);
  }
  std::vector<std::pair<Shape, int>> corners;
  add_corners(Box::whole(tensor.shape), dims, -1, corners);
  std::uint64_t covered = 0;
  for (const Extent& extent : tensor.extents) {
    add_corners(extent.box, dims, 1, corners);
    covered += extent.box.elements();
  }
  std::sort(corners.begin(), corners.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (std::size_t i = 0; i < corners.size();) {
    int sum = 0;
    std::size_t end = i;
    for (; end < corners.size() && corners[end].first == corners[i].first; ++end) {
      sum += corners[end].second;
    }
    if (sum != 0) {
      const std::uint64_t total = element_count(tensor.shape);
      fail(Errc::mismatch,
           "tensor '{}' of shape {}: the ranks' pieces {} (they hold {} of {} "
           "elements; look near {})",
           tensor.name, to_string(tensor.shape),
           covered > total   ? "overlap"
           : covered < total ? "leave gaps"
                             : "overlap and leave gaps",
           covered, total, to_string(corners[i].first));
    }
    i = end;
  }
}

}  // namespace cairn::detail
