#include "cairn/placement.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/throw.hpp"

namespace cairn {

using detail::fail;

// Times the largest item (16 bytes) this still leaves room below 2^64, so that no size in bytes
// wraps.
constexpr std::uint64_t kMostElements = std::uint64_t{1} << 58;

std::uint64_t element_count(const Shape& shape) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  std::uint64_t count = 1;
  for (const std::uint64_t extent : shape) {
    if (__builtin_mul_overflow(count, extent, &count) || count > kMostElements) {
      fail(Errc::unsupported, "shape {} has more than 2^58 elements", to_string(shape));
    }
  }
  return count;
}

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

Box Box::whole(const Shape& shape) { return {Shape(shape.size(), 0), shape}; }

std::string to_string(const Box& box) {
  std::string text = "[";
  for (std::size_t d = 0; d < box.start.size(); ++d) {
    text += fmt::format("{}{}:{}", d == 0 ? "" : ", ", box.start[d], box.start[d] + box.count[d]);
  }
  return text + "]";
}

Placement Placement::replicated(Shape global_shape) {
  Box box = Box::whole(global_shape);
  return {Kind::replicated, std::move(global_shape), std::move(box)};
}

Placement Placement::block(Shape global_shape, Box box) {
  if (box.start.size() != global_shape.size() || box.count.size() != global_shape.size()) {
    fail(Errc::usage, "a box of {} dimensions cannot lie in a tensor of shape {}", box.start.size(),
         to_string(global_shape));
  }
  for (std::size_t d = 0; d < global_shape.size(); ++d) {
    if (box.start[d] > global_shape[d] || box.count[d] > global_shape[d] - box.start[d]) {
      fail(Errc::usage, "box {} leaves the tensor of shape {}", to_string(box),
           to_string(global_shape));
    }
  }
  return {Kind::block, std::move(global_shape), std::move(box)};
}

Placement Placement::split(Shape global_shape, std::size_t dim, int parts, int index) {
  if (dim >= global_shape.size()) {
    fail(Errc::usage, "a tensor of shape {} has no dimension {} to split", to_string(global_shape),
         dim);
  }
  const Range range = balanced_range(global_shape[dim], parts, index);
  Box box = Box::whole(global_shape);
  box.start[dim] = range.start;
  box.count[dim] = range.count;
  return block(std::move(global_shape), std::move(box));
}

Placement Placement::flat(Shape global_shape, std::uint64_t start, std::uint64_t count) {
  const std::uint64_t total = element_count(global_shape);
  if (start > total || count > total - start) {
    fail(Errc::usage, "flat range {}+{} leaves the tensor of shape {}", start, count,
         to_string(global_shape));
  }
  return {Kind::flat, std::move(global_shape), Box{{start}, {count}}};
}

Placement Placement::flat_split(Shape global_shape, int parts, int index) {
  const Range range = balanced_range(element_count(global_shape), parts, index);
  return flat(std::move(global_shape), range.start, range.count);
}

std::string_view to_string(Placement::Kind kind) {
  switch (kind) {
    case Placement::Kind::replicated:
      return "replicated";
    case Placement::Kind::block:
      return "block";
    case Placement::Kind::flat:
      return "flat";
  }
  return "unknown";
}

void check_placement(const Placement& placement) {
  if (placement.kind == Placement::Kind::flat) {
    if (placement.box.start.size() != 1 || placement.box.count.size() != 1) {
      fail(Errc::usage, "a flat range has one dimension");
    }
    Placement::flat(placement.global_shape, placement.box.start[0], placement.box.count[0]);
    return;
  }
  Placement::block(placement.global_shape, placement.box);
  if (placement.kind == Placement::Kind::replicated &&
      placement.box != Box::whole(placement.global_shape)) {
    fail(Errc::usage, "the piece is called replicated, but it is only {} of {}",
         to_string(placement.box), to_string(placement.global_shape));
  }
}

Range balanced_range(std::uint64_t n, int parts, int index) {
  if (parts < 1 || index < 0 || index >= parts) {
    fail(Errc::usage, "there is no part {} of {}", index, parts);
  }
  const auto p = static_cast<std::uint64_t>(parts);
  const auto i = static_cast<std::uint64_t>(index);
  const std::uint64_t base = n / p;
  const std::uint64_t longer = n % p;
  return {i * base + std::min(i, longer), base + (i < longer ? 1 : 0)};
}

}  // namespace cairn
