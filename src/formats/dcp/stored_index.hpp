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
    const Shape* corner;

    std::strong_ordering operator<=>(const Key& other) const;
    bool operator==(const Key& other) const { return (*this <=> other) == 0; }
  };
  struct Place {
    std::string_view name;
    Shape corner;
    bool is_value;  // and has none
    pickle::Ref info;
  };
  struct Hashed {
    std::uint64_t hash;
    std::uint32_t place;
  };

  static Key key_of(std::string_view name, const Shape* corner);
  Key key_of(const Hashed& hashed) const {
    const Place& place = places_[hashed.place];
    return {hashed.hash, place.name, place.is_value ? nullptr : &place.corner};
  }

  std::vector<Place> places_;
  std::vector<Hashed> sorted_;
};

}  // namespace cairn::detail::dcp
