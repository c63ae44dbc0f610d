#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "cairn/dtype.hpp"

namespace cairn::detail {

/// Whether cast_elements knows the way. Local, as all of these.
bool can_cast(DType from, DType to);

/// Whether a value of `from` may have no counterpart in `to`: only between integers. Floats always
/// have one (LoadOptions::cast).
bool may_not_fit(DType from, DType to);

/// An element without a counterpart.
struct Misfit {
  std::uint64_t element = 0;  ///< position in the bytes that were given
  std::string value;
};

/// The first element of `from_bytes` that does not fit, or nothing.
std::optional<Misfit> find_misfit(DType from, DType to, std::span<const std::byte> from_bytes);

/// Converts `elements` elements; the memories must not overlap and need no alignment. Floats round
/// to the nearest, ties to even, whatever the rounding mode of the caller, and keep subnormals.
/// Errors: mismatch at the first integer that does not fit; internal for a pair that can_cast
/// refuses.
void cast_elements(DType from, const std::byte* from_bytes, DType to, std::byte* to_bytes,
                   std::uint64_t elements);

}  // namespace cairn::detail
