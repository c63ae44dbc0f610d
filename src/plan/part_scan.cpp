#include "plan/part_scan.hpp"

#include <algorithm>

namespace cairn::detail {

PartScan::PartScan(const TensorEntry& tensor, const Extent& extent, bool statistics)
    : digester_(tensor, extent) {
  if (statistics) statistics_.emplace(tensor.dtype);
}

void PartScan::update(std::span<const std::byte> bytes) {
  if (!statistics_) return digester_.update(bytes);
  constexpr std::size_t kWindowBytes = 256 << 10;  // fits the second-level cache
  while (!bytes.empty()) {
    const auto window = bytes.first(std::min(kWindowBytes, bytes.size()));
    digester_.update(window);
    statistics_->update(window);
    bytes = bytes.subspan(window.size());
  }
}

PartReport PartScan::report() const {
  PartReport report;
  report.digest = digester_.value();
  if (statistics_) report.statistics = statistics_->value();
  return report;
}

}  // namespace cairn::detail
