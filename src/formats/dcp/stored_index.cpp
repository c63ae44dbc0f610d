#include "formats/dcp/stored_index.hpp"

#include <algorithm>

#include "base/digest.hpp"

namespace cairn::detail::dcp {

std::strong_ordering StoredIndex::Key::operator<=>(const Key& other) const {
  if (const auto order = hash <=> other.hash; order != 0) return order;
  if (const auto order = name <=> other.name; order != 0) return order;
  if (corner == nullptr || other.corner == nullptr) {
    return (corner != nullptr) <=> (other.corner != nullptr);
  }
  return std::lexicographical_compare_three_way(corner->begin(), corner->end(),
                                                other.corner->begin(), other.corner->end());
}

StoredIndex::Key StoredIndex::key_of(std::string_view name, const Shape* corner) {
  constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15;  // spreads small numbers over all bits
  Key key{digest_of(name), name, corner};
  if (corner == nullptr) return key;
  for (const std::uint64_t number : *corner) key.hash = (key.hash ^ number) * kOdd;
  return key;
}

void StoredIndex::add(std::string_view name, const Shape* corner, pickle::Ref info) {
  sorted_.push_back({key_of(name, corner).hash, static_cast<std::uint32_t>(places_.size())});
  places_.push_back({name, corner == nullptr ? Shape() : *corner, corner == nullptr, info});
}

void StoredIndex::settle() {
  std::sort(sorted_.begin(), sorted_.end(), [&](const Hashed& a, const Hashed& b) {
    if (a.hash != b.hash) return a.hash < b.hash;
    const auto order = key_of(a) <=> key_of(b);
    return order == 0 ? a.place < b.place : order < 0;
  });
}

std::optional<pickle::Ref> StoredIndex::find(std::string_view name, const Shape* corner) const {
  const Key key = key_of(name, corner);
  const auto behind = std::upper_bound(
      sorted_.begin(), sorted_.end(), key, [&](const Key& wanted, const Hashed& hashed) {
        return wanted.hash != hashed.hash ? wanted.hash < hashed.hash : wanted < key_of(hashed);
      });
  if (behind == sorted_.begin() || key_of(behind[-1]) != key) return std::nullopt;
  return places_[behind[-1].place].info;
}

}  // namespace cairn::detail::dcp
