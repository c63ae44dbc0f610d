#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/dtype.hpp"
#include "cairn/shape.hpp"
#include "formats/pickle/graph.hpp"

namespace cairn::detail::torch {

/// A NumPy array, or a scalar as an array of no dimensions.
struct NumpyArray {
  std::string type;            ///< as NumPy writes it: "<f8", "|b1", "<U3"
  std::optional<DType> dtype;  ///< nothing where cairn has none like it
  Shape shape;
  std::vector<std::byte> bytes;  ///< row-major, little-endian; empty without a dtype
};

/// The array or scalar that a value records, or nothing where it records none. Local. Errors:
/// corrupt.
std::optional<NumpyArray> numpy_array_of(const pickle::Graph& graph, pickle::Ref ref);
/// NumPy's name of a dtype: "float32"; and the inverse, nothing where cairn has none like it.
/// Local.
std::string numpy_name(DType dtype);
std::optional<DType> dtype_of_numpy(std::string_view name);

}  // namespace cairn::detail::torch
