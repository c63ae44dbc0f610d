#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/pickle/graph.hpp"

namespace cairn::detail::dcp {

/// Where each saved thing is told to lie: by name, and by the corner of its box if it is a part of
/// a tensor. Names lie all over the pickle: they are compared only where hashes are equal. Lifetime
/// of the names: that of the graph. All members are Local.
class StoredIndex {
 public:
  /// `corner`: null for a value.
  void add(std::string_view name, const Shape* corner, pickle::Ref info);
  /// To be called once, after all was added and before anything is looked for.
  void settle();
  /// The last that was added by this name and corner, or nothing.
  std::optional<pickle::Ref> find(std::string_view name, const Shape* corner) const;

 private:
  struct Key {
    std::uint64_t hash;
    std::string_view name;
    const std::uint64_t* numbers;
    std::uint32_t count;  // of numbers; kNoCorner for a value

    std::strong_ordering operator<=>(const Key& other) const;
    bool operator==(const Key& other) const { return (*this <=> other) == 0; }
  };
  struct Place {
    std::uint64_t hash;
    std::string_view name;
    std::size_t first;  // of its numbers
    std::uint32_t count;
    pickle::Ref info;
  };
  static constexpr std::uint32_t kNoCorner = 0xffffffff;

  static Key key_of(std::string_view name, const Shape* corner);
  Key key_of(const Place& place) const {
    return {place.hash, place.name, numbers_.data() + place.first, place.count};
  }

  std::vector<Place> places_;
  std::vector<std::uint64_t> numbers_;  // of all corners
};

}  // namespace cairn::detail::dcp
