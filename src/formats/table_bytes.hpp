#pragma once

#include <cstddef>
#include <cstdint>

#include "cairn/manifest.hpp"

namespace cairn::detail {

/// Adds up what a table of tensors takes in memory, so that a small file can't fill it. All
/// members are Local. Errors: unsafe (more than any model's table).
class TableBytes {
 public:
  /// An entry with the extents that it has.
  void add(const TensorEntry& entry);
  /// An extent that is about to join an entry.
  void add_extent(std::size_t dimensions);

 private:
  void add(std::uint64_t bytes);

  std::uint64_t bytes_ = 0;
};

}  // namespace cairn::detail
