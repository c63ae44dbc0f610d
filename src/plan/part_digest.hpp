#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/crc64.hpp"
#include "cairn/manifest.hpp"

namespace cairn::detail {

/// The digest of an extent (Extent::digest): the CRC-64 register of its tensor's row-major bytes
/// with zeros for every byte that is not the extent's; the register starts at ~0 where the extent
/// holds the tensor's first byte, otherwise at 0. The digests of all extents XOR to the register of
/// the whole tensor, whatever the extents are. All members are Local.
class PartDigester {
 public:
  PartDigester(const TensorEntry& tensor, const Extent& extent);
  /// The extent's next bytes, in dense row-major order.
  void update(std::span<const std::byte> bytes);
  /// After all bytes.
  std::uint64_t value() const { return crc64_skip(state_, tail_); }

 private:
  /// A dimension that the extent crosses in steps, with bytes of others between them.
  struct Step {
    std::uint64_t count = 0;
    std::uint64_t index = 0;
    Crc64Skip skip;
  };
  void add_steps(const Box& box, const Shape& shape, std::uint64_t item);
  void next_run();

  std::uint64_t state_ = 0;
  std::uint64_t tail_ = 0;   // bytes of the tensor behind the extent's last
  std::uint64_t run_ = 0;    // bytes of a contiguous run
  std::uint64_t left_ = 0;   // of the current run
  std::vector<Step> steps_;  // outermost first
};

/// One call for bytes in one piece.
std::uint64_t part_digest(const TensorEntry& tensor, const Extent& extent,
                          std::span<const std::byte> bytes);

}  // namespace cairn::detail
