#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/dtype.hpp"
#include "cairn/shape.hpp"
#include "formats/pickle/graph.hpp"

namespace cairn::detail::torch {

/// What NumPy calls a dtype.
struct NumpyType {
  std::string code;       ///< kind and size: "f8", "b1", "U3", "O", "M8"
  char order = '|';       ///< of bytes: '<', '>', or '|' where there is none
  std::int64_t step = 1;  ///< of times, in units
  std::string unit;       ///< of times: "s"; empty where there is none
  bool has_fields = false;

  /// Bytes of one; 0 where the code has no number.
  std::uint64_t bytes() const;
  /// "<f8", "|O", "<M8[s]".
  std::string text() const;
  /// "float64", "str96", "datetime64[s]".
  std::string name() const;
};

/// A NumPy array, or a scalar as an array of no dimensions.
struct NumpyArray {
  NumpyType type;
  std::optional<DType> dtype;  ///< nothing where cairn has none like it
  Shape shape;
  /// Row-major, little-endian. Without a dtype that of a scalar as it lies there, and nothing of
  /// others.
  std::vector<std::byte> bytes;
};

/// The array or scalar that a value records, or nothing where it records none. Local. Errors:
/// corrupt.
std::optional<NumpyArray> numpy_array_of(const pickle::Graph& graph, pickle::Ref ref);
/// NumPy's name of a dtype: "float32"; and the inverse, nothing where cairn has none like it.
/// Local.
std::string numpy_name(DType dtype);
std::optional<DType> dtype_of_numpy(std::string_view name);

}  // namespace cairn::detail::torch
