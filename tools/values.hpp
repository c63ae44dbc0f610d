#pragma once

#include <cstddef>
#include <cstdint>

#include "cairn/dtype.hpp"

namespace cairn::tool {

/// How the elements of two tensors differ.
struct Difference {
  std::uint64_t differing = 0;        ///< elements
  double max_abs = 0;                 ///< largest |a - b|; nan when a NaN meets anything else
  double max_rel = 0;                 ///< largest |a - b| / max(|a|, |b|)
  std::uint64_t max_abs_integer = 0;  ///< max_abs without rounding, where is_exact
};

/// Whether both are integers of like signedness (bool counts as unsigned), whose difference fits 64
/// bits.
bool is_exact(DType a, DType b);

/// Compares `count` dense elements. Equal dtypes are compared by their bits, others by their
/// numbers.
Difference compare(DType a_dtype, const std::byte* a, DType b_dtype, const std::byte* b,
                   std::uint64_t count);

/// Adds what another part of the same tensors showed.
void merge(Difference& into, const Difference& part);

}  // namespace cairn::tool
