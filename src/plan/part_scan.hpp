#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "cairn/manifest.hpp"
#include "plan/part_digest.hpp"
#include "plan/statistics.hpp"

namespace cairn::detail {

/// What a look at all bytes of an extent shows.
struct PartReport {
  std::uint64_t digest = 0;
  Statistics statistics;    ///< of nothing unless they were wanted
  std::uint32_t crc32 = 0;  ///< of its bytes, unless it was not wanted (WriteJob::crc32)
};

/// Looks at the bytes of an extent once, for all that is wanted of them. All members are Local.
class PartScan {
 public:
  PartScan(const TensorEntry& tensor, const Extent& extent, bool statistics);
  /// The extent's next bytes, in dense row-major order.
  void update(std::span<const std::byte> bytes);
  /// After all bytes.
  PartReport report() const;

 private:
  PartDigester digester_;
  std::optional<StatisticsTaker> statistics_;
};

}  // namespace cairn::detail
