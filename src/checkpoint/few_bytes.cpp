#include "checkpoint/few_bytes.hpp"

#include <algorithm>
#include <cstring>

#include "base/throw.hpp"
#include "plan/slices.hpp"
#include "transfer/reader.hpp"

namespace cairn::detail {
namespace {

bool same_places(const TensorEntry& a, const TensorEntry& b) {
  return a.layout == b.layout && a.offset == b.offset && a.strides == b.strides &&
         a.filters == b.filters && a.stored == b.stored &&
         std::equal(a.extents.begin(), a.extents.end(), b.extents.begin(), b.extents.end(),
                    [](const Extent& x, const Extent& y) {
                      return x.file == y.file && x.offset == y.offset && x.flat == y.flat &&
                             x.box == y.box;
                    });
}

}  // namespace

bool same_content(const Manifest& manifest, const TensorEntry& a, const TensorEntry& b) {
  if (a.dtype != b.dtype || a.shape != b.shape) return false;
  if (same_places(a, b)) return true;
  const auto digest = a.content_digest();
  const auto other = b.content_digest();
  if (digest && other && *digest != *other) return false;
  constexpr std::uint64_t kWindowBytes = 4 << 20;
  const std::uint64_t item = item_bytes(a.dtype);
  Reader reader(manifest);
  std::vector<std::byte> first;
  std::vector<std::byte> second;
  if (element_count(a.shape) == 0) return true;
  for (const Box& slice : slices_of(Box::whole(a.shape), kWindowBytes / item)) {
    first.resize(slice.elements() * item);
    second.resize(first.size());
    reader.read(a, Placement::block(a.shape, slice), first.data());
    reader.read(b, Placement::block(b.shape, slice), second.data());
    if (first != second) return false;
  }
  return true;
}

std::vector<std::int64_t> integers_in(const Manifest& manifest, const TensorEntry& tensor) {
  constexpr std::uint64_t kMost = 1'000'000;
  const std::uint64_t count = element_count(tensor.shape);
  if ((tensor.dtype != DType::i64 && tensor.dtype != DType::i32) || count > kMost) {
    fail(Errc::usage, "'{}' is {} of {} elements, and not i64 or i32 of at most {}", tensor.name,
         to_string(tensor.dtype), count, kMost);
  }
  std::vector<std::byte> bytes(tensor.bytes());
  Reader(manifest).read(tensor, Placement::replicated(tensor.shape), bytes.data());
  std::vector<std::int64_t> numbers(count);
  if (tensor.dtype == DType::i64) {
    if (count != 0) std::memcpy(numbers.data(), bytes.data(), bytes.size());
    return numbers;
  }
  for (std::uint64_t i = 0; i < count; ++i) {
    std::int32_t number = 0;
    std::memcpy(&number, bytes.data() + i * sizeof(number), sizeof(number));
    numbers[i] = number;
  }
  return numbers;
}

}  // namespace cairn::detail
