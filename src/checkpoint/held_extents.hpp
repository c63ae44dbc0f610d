#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cairn/comm.hpp"
#include "cairn/manifest.hpp"
#include "transfer/engine.hpp"

namespace cairn::detail {

/// Which extents of the wanted tensors a load brings whole into the memory of a rank: their digests
/// can be checked there, without a second read. `manifest` and the items must outlive it.
class HeldExtents {
 public:
  /// An extent in this rank's memory.
  struct Held {
    const ReadItem* item;
    std::size_t extent;  ///< position in the tensor's extents
  };

  /// `wanted` (by tensor, not 0: wanted by any rank) is the same on all ranks. Local.
  HeldExtents(const Manifest& manifest, std::span<const std::uint64_t> wanted,
              std::span<const ReadItem> items);
  /// Lets all ranks know. Collective.
  void share(const Comm& comm);

  /// Whether any rank holds the extent. Local, after share().
  bool by_any_rank(std::size_t tensor, std::size_t extent) const;
  /// Local.
  const std::vector<Held>& mine() const { return mine_; }

 private:
  std::vector<std::size_t> first_;  // by tensor: the bit of its first extent
  std::vector<std::uint64_t> bits_;
  std::vector<Held> mine_;
};

/// The digest of an extent as it lies in the memory of an item that holds it. Local.
std::uint64_t digest_in_memory(const TensorEntry& tensor, const Extent& extent,
                               const ReadItem& item);

}  // namespace cairn::detail
