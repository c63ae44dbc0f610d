#include "plan/slices.hpp"

#include <algorithm>

namespace cairn::detail {
namespace {

void append_slices(const Box& box, std::uint64_t most_elements, std::vector<Box>& slices) {
  const std::uint64_t elements = box.elements();
  if (elements == 0) return;
  if (elements <= most_elements) {
    slices.push_back(box);
    return;
  }
  // Only the outermost dimension that has more than one index can be cut without breaking the
  // order.
  std::size_t d = 0;
  while (box.count[d] == 1) ++d;
  const std::uint64_t inner = elements / box.count[d];
  const std::uint64_t rows = std::max<std::uint64_t>(most_elements / inner, 1);
  for (std::uint64_t at = 0; at < box.count[d]; at += rows) {
    Box part = box;
    part.start[d] += at;
    part.count[d] = std::min(rows, box.count[d] - at);
    append_slices(part, most_elements, slices);
  }
}

}  // namespace

std::vector<Box> slices_of(const Box& box, std::uint64_t most_elements) {
  std::vector<Box> slices;
  append_slices(box, std::max<std::uint64_t>(most_elements, 1), slices);
  return slices;
}

}  // namespace cairn::detail
