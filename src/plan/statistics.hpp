#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "cairn/manifest.hpp"

namespace cairn::detail {

/// Takes the statistics of elements as their bytes come by. All members are Local.
class StatisticsTaker {
 public:
  explicit StatisticsTaker(DType dtype) : dtype_(dtype), item_(item_bytes(dtype)) {}
  /// The next bytes; an element may lie across two calls.
  void update(std::span<const std::byte> bytes);
  const Statistics& value() const { return statistics_; }

 private:
  void add(const std::byte* elements, std::size_t count);

  DType dtype_;
  std::size_t item_;
  Statistics statistics_;
  std::array<std::byte, 16> split_{};  // the beginning of an element whose end is still to come
  std::size_t split_bytes_ = 0;
};

void merge(Statistics& into, const Statistics& part);

}  // namespace cairn::detail
