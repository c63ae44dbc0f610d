#include "cairn/manifest.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

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

TensorHead TensorTable::head(std::size_t position) const {
  if (!decoded_) return source_->head(position);
  const TensorEntry& entry = entries_[position];
  return {entry.name,   entry.dtype,  {entry.shape.data(), entry.shape.size()},
          entry.layout, entry.offset, entry.extents.empty() ? 0 : entry.extents.front().file};
}

const std::vector<TensorEntry>& TensorTable::all() const {
  if (!decoded_) {
    entries_ = source_->decode();
    decoded_ = true;
  }
  return entries_;
}

std::vector<TensorEntry>& TensorTable::all() {
  static_cast<void>(std::as_const(*this).all());
  return entries_;
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

std::uint64_t Manifest::file_bytes() const {
  std::uint64_t sum = 0;
  for (const FileEntry& file : files) sum += file.bytes;
  return sum;
}

namespace {

std::vector<std::string_view> names_of(const TensorTable& tensors) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) names.push_back(tensors.head(i).name);
  return names;
}

std::vector<std::string_view> names_of(std::span<const TensorEntry> tensors) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorEntry& tensor : tensors) names.emplace_back(tensor.name);
  return names;
}

}  // namespace

TensorNames::TensorNames(const TensorTable& tensors) : TensorNames(names_of(tensors)) {}
TensorNames::TensorNames(std::span<const TensorEntry> tensors) : TensorNames(names_of(tensors)) {}

TensorNames::TensorNames(std::vector<std::string_view> names) : names_(std::move(names)) {
  if (names_.size() >= std::numeric_limits<std::uint32_t>::max()) {
    detail::fail(Errc::unsupported, "{} tensors are too many", names_.size());
  }
  slots_.resize(std::bit_ceil(2 * names_.size() + 1));
  for (std::size_t i = 0; i < names_.size(); ++i) {
    const std::uint64_t hash = detail::digest_of(names_[i]);
    Slot& slot = slots_[slot_of(names_[i], hash)];
    if (slot.place == 0) {
      slot = {static_cast<std::uint32_t>(hash), static_cast<std::uint32_t>(i + 1)};
    } else if (!duplicate_) {
      duplicate_ = names_[i];
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
    if (slot.hash == static_cast<std::uint32_t>(hash) && names_[slot.place - 1] == name) return at;
  }
}

}  // namespace cairn
