#include "formats/dcp/stored_index.hpp"

#include <algorithm>

#include "base/digest.hpp"

namespace cairn::detail::dcp {

std::strong_ordering StoredIndex::Key::operator<=>(const Key& other) const {
  if (const auto order = hash <=> other.hash; order != 0) return order;
  if (const auto order = name <=> other.name; order != 0) return order;
  if (const auto order = count <=> other.count; order != 0 || count == kNoCorner) return order;
  return std::lexicographical_compare_three_way(numbers, numbers + count, other.numbers,
                                                other.numbers + count);
}

StoredIndex::Key StoredIndex::key_of(std::string_view name, const Shape* corner) {
  constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15;  // spreads small numbers over all bits
  Key key{digest_of(name), name, nullptr, kNoCorner};
  if (corner == nullptr) return key;
  key.numbers = corner->data();
  key.count = static_cast<std::uint32_t>(corner->size());
  for (const std::uint64_t number : *corner) key.hash = (key.hash ^ number) * kOdd;
  return key;
}

void StoredIndex::add(std::string_view name, const Shape* corner, pickle::Ref info) {
  const Key key = key_of(name, corner);
  places_.push_back({key.hash, name, numbers_.size(), key.count, info});
  if (corner != nullptr) numbers_.insert(numbers_.end(), corner->begin(), corner->end());
}

void StoredIndex::settle() {
  std::stable_sort(places_.begin(), places_.end(), [&](const Place& a, const Place& b) {
    return a.hash != b.hash ? a.hash < b.hash : key_of(a) < key_of(b);
  });
}

std::optional<pickle::Ref> StoredIndex::find(std::string_view name, const Shape* corner) const {
  const Key key = key_of(name, corner);
  const auto behind = std::upper_bound(
      places_.begin(), places_.end(), key,
      [&](const Key& wanted, const Place& place) { return wanted < key_of(place); });
  if (behind == places_.begin() || key_of(behind[-1]) != key) return std::nullopt;
  return behind[-1].info;
}

}  // namespace cairn::detail::dcp
