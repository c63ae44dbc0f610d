#include "formats/table_bytes.hpp"

#include "base/throw.hpp"

namespace cairn::detail {
namespace {

// The vector that grows holds half of it once more, and what is read from has its room, too.
constexpr std::uint64_t kMost = 96 << 20;
constexpr std::uint64_t kBlock = 16;  // what the allocator adds to each piece of memory

std::uint64_t bytes_of(const Shape& shape) {
  return shape.empty() ? 0 : kBlock + shape.size() * sizeof(shape[0]);
}

}  // namespace

void TableBytes::add(const TensorEntry& entry) {
  std::uint64_t bytes = sizeof(entry) + bytes_of(entry.shape) + bytes_of(entry.strides);
  // The name lies in the path and among aliases once more.
  bytes += 2 * entry.name.size() + entry.path.size() * sizeof(PathKey);
  add(bytes);
  for (const Extent& extent : entry.extents) add_extent(extent.box.count.size());
}

void TableBytes::add_extent(std::size_t dimensions) {
  add(sizeof(Extent) + 2 * (kBlock + dimensions * sizeof(std::uint64_t)));
}

void TableBytes::add(std::uint64_t bytes) {
  bytes_ += bytes;
  if (bytes_ > kMost) {
    fail(Errc::unsafe, "its table of tensors takes more than {} MiB", kMost >> 20);
  }
}

}  // namespace cairn::detail
