#include "cairn/manifest.hpp"

#include <algorithm>
#include <bit>
#include <limits>

#include "base/digest.hpp"
#include "base/throw.hpp"

namespace cairn {

std::optional<std::uint64_t> TensorEntry::content_digest() const {
  if (bytes() == 0) return 0;
  std::uint64_t together = 0;
  for (const Extent& extent : extents) {
    if (!extent.digest) return std::nullopt;
    together ^= *extent.digest;
  }
  return ~together;
}

const TensorEntry* Manifest::find(std::string_view name) const {
  const auto it = std::find_if(tensors.begin(), tensors.end(),
                               [&](const TensorEntry& tensor) { return tensor.name == name; });
  return it == tensors.end() ? nullptr : &*it;
}

std::uint64_t Manifest::tensor_bytes() const {
  std::uint64_t sum = 0;
  for (const TensorEntry& tensor : tensors) sum += tensor.bytes();
  return sum;
}

TensorNames::TensorNames(std::span<const TensorEntry> tensors)
    : tensors_(tensors), slots_(std::bit_ceil(2 * tensors.size() + 1)) {
  if (tensors.size() >= std::numeric_limits<std::uint32_t>::max()) {
    detail::fail(Errc::unsupported, "{} tensors are too many", tensors.size());
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::string& name = tensors[i].name;
    const std::uint64_t hash = detail::digest_of(name);
    Slot& slot = slots_[slot_of(name, hash)];
    if (slot.place == 0) {
      slot = {static_cast<std::uint32_t>(hash), static_cast<std::uint32_t>(i + 1)};
    } else if (!duplicate_) {
      duplicate_ = name;
    }
  }
}

std::optional<std::size_t> TensorNames::find(std::string_view name) const {
  const Slot& slot = slots_[slot_of(name, detail::digest_of(name))];
  if (slot.place == 0) return std::nullopt;
  return slot.place - 1;
}

/// Where the name is, or the empty slot where it belongs.
std::size_t TensorNames::slot_of(std::string_view name, std::uint64_t hash) const {
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = (hash >> 32) & mask;; at = (at + 1) & mask) {
    const Slot& slot = slots_[at];
    if (slot.place == 0) return at;
    if (slot.hash == static_cast<std::uint32_t>(hash) && tensors_[slot.place - 1].name == name) {
      return at;
    }
  }
}

}  // namespace cairn
