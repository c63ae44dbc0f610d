#include "formats/table_bytes.hpp"

#include <algorithm>
#include <string>

#include "base/throw.hpp"

namespace cairn::detail {
namespace {

// The vector that grows holds half of it once more, and what is read from has its room, too.
constexpr std::uint64_t kMost = 96 << 20;
// A reader may take 256 MiB beyond the files. While the table's vector grows there are two of it, so
// that a quarter of the files stays below their half.
constexpr std::uint64_t kPartOfFiles = 4;
constexpr std::uint64_t kBlock = 16;  // what the allocator adds to each piece of memory

std::uint64_t bytes_of(const Shape& shape) {
  return shape.empty() ? 0 : kBlock + shape.size() * sizeof(shape[0]);
}

}  // namespace

void TableBytes::add(const TensorEntry& entry) {
  std::uint64_t bytes = sizeof(entry) + bytes_of(entry.shape) + bytes_of(entry.strides);
  // The name lies in the path and among aliases once more.
  bytes += 2 * entry.name.size() + entry.path.size() * sizeof(PathKey);
  add_bytes(bytes);
  for (const Extent& extent : entry.extents) add_extent(extent.box.count.size());
}

void TableBytes::add_extent(std::size_t dimensions) {
  add_bytes(sizeof(Extent) + 2 * (kBlock + dimensions * sizeof(std::uint64_t)));
}

void TableBytes::add_name(std::string_view name, const Shape& shape) {
  add_bytes(sizeof(std::string) + sizeof(Shape) + kBlock + name.size() + bytes_of(shape));
}

void TableBytes::add_bytes(std::uint64_t bytes) {
  if (add_if_room(bytes)) return;
  fail(Errc::unsafe, "its table of tensors takes more than {} MiB", most() >> 20);
}

bool TableBytes::add_if_room(std::uint64_t bytes) {
  if (bytes > most() - bytes_) return false;
  bytes_ += bytes;
  return true;
}

std::uint64_t TableBytes::most() const { return kMost + file_bytes_ / kPartOfFiles; }

}  // namespace cairn::detail
