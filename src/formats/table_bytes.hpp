#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "cairn/manifest.hpp"

namespace cairn::detail {

/// Adds up what the table of a checkpoint takes in memory, over all of its files, so that small
/// ones can't fill it: one object goes through all that read them. All members are Local. Errors:
/// unsafe (more than any model's table).
class TableBytes {
 public:
  /// A file of the checkpoint, before what is in it: with the files, the table may be large.
  void add_file(std::uint64_t bytes) { file_bytes_ += bytes; }
  /// An entry with the extents that it has.
  void add(const TensorEntry& entry);
  /// An extent that is about to join an entry.
  void add_extent(std::size_t dimensions);
  /// A name and a shape that are kept until entries are made of them.
  void add_name(std::string_view name, const Shape& shape);
  /// What else is kept until the table is complete.
  void add_bytes(std::uint64_t bytes);
  /// The same of what can be left out: false, and nothing is added, where it has no room.
  bool add_if_room(std::uint64_t bytes);

 private:
  std::uint64_t most() const;

  std::uint64_t bytes_ = 0;
  std::uint64_t file_bytes_ = 0;
};

}  // namespace cairn::detail
