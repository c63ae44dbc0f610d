#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "formats/table_bytes.hpp"
#include "formats/torch/values.hpp"

namespace cairn::detail::torch {

constexpr std::size_t kMostListBytes = 24 << 20;  // of all lists of a file

/// What all lists together may take, beside the table.
class ListRoom {
 public:
  explicit ListRoom(TableBytes& table_bytes) : table_bytes_(table_bytes) {}

  bool take(std::size_t bytes) {
    if (taken_ > kMostListBytes) return false;
    taken_ += bytes;
    return table_bytes_.add_if_room(2 * bytes);  // a list holds as much once more while it grows
  }

 private:
  TableBytes& table_bytes_;
  std::size_t taken_ = 0;
};

/// A JSON list that becomes a text entry by entry; a tree of them would take ten times the memory.
class JsonList {
 public:
  explicit JsonList(ListRoom& room) : room_(room) {}

  /// False when there is no room left.
  bool add(const Json& entry) {
    const std::string text = entry.dump();
    if (!room_.take(text.size() + 1)) return false;
    if (text_.size() > 1) text_ += ',';
    text_ += text;
    return true;
  }
  std::string take() { return std::move(text_ += ']'); }

 private:
  ListRoom& room_;
  std::string text_ = "[";
};

}  // namespace cairn::detail::torch
