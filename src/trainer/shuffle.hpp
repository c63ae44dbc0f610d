#pragma once

#include <cstdint>

#include "cairn/export.hpp"

namespace cairn::detail {

/// A permutation of 0 to size - 1 that is computed element by element, without memory: equal for
/// equal arguments on every machine.
class CAIRN_EXPORT Shuffle {
 public:
  Shuffle(std::uint64_t size, std::uint64_t seed, std::uint64_t epoch);
  /// Where `index`, below size, goes.
  std::uint64_t operator()(std::uint64_t index) const;

 private:
  std::uint64_t size_;
  std::uint64_t key_;
  unsigned half_bits_;
};

}  // namespace cairn::detail
