#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "cairn/dtype.hpp"
#include "cairn/shape.hpp"
#include "formats/pickle/graph.hpp"
#include "formats/torch/storages.hpp"

namespace cairn::detail::torch {

/// A view of a storage.
struct Tensor {
  DType dtype = DType::f32;
  Shape shape;
  Shape strides;            ///< in bytes
  std::size_t storage = 0;  ///< position in Storages::all
  std::uint64_t first = 0;  ///< bytes from the storage's start to the first element
  bool contiguous = true;   ///< one row-major run
};

/// PyTorch and NumPy have no more.
inline constexpr std::size_t kMostDimensions = 64;

/// The numbers in a tuple or torch.Size, one a dimension, none negative. Local. Errors: corrupt,
/// about `what`; unsupported (too many).
Shape numbers_of(const pickle::Graph& graph, pickle::Ref ref, std::string_view what);

/// Whether a value is the record of a tensor or parameter. Local.
bool is_tensor(const pickle::Graph& graph, pickle::Ref ref);

/// The tensor of such a record; everything in it lies in its storage. Local. Errors: corrupt;
/// unsupported (sparse, quantized, conjugated, ...); unsafe (a small storage that stands for a huge
/// tensor).
Tensor tensor_of(const pickle::Graph& graph, pickle::Ref ref, const Storages& storages);

}  // namespace cairn::detail::torch
