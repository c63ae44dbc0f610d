#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <string>

#include "cairn/tensor_view.hpp"
#include "cairn/torch.hpp"

namespace cairn::detail {

/// A tensor's elements as dense row-major bytes in this process' memory: its own memory where it is
/// like that already, else that of a staged copy. The handles keep the bytes alive.
struct TensorMemory {
  at::Tensor tensor;
  at::Tensor dense;  ///< `tensor` itself, or the staged copy
  DType dtype = DType::f32;
  Shape
      shape;  ///< of the stored elements: the tensor's sizes, but {bytes} for packed sub-byte types

  bool staged() const { return !dense.is_same(tensor); }
  std::byte* data() const { return static_cast<std::byte*>(dense.data_ptr()); }
};

Shape shape_of(const at::Tensor& tensor);
/// Several quantised elements share a byte.
bool is_packed(const at::Tensor& tensor);

/// With the tensor's values. Errors: unsupported (sparse and other layouts without dense elements).
TensorMemory memory_for_save(const std::string& name, const at::Tensor& tensor);
/// To be filled; a staged copy reaches the tensor by finish_load. Errors: unsupported.
TensorMemory memory_for_load(const std::string& name, const at::Tensor& tensor);
/// Copies what was staged, and tells autograd that the tensor has changed.
void finish_load(const TensorMemory& memory);

/// The policy's answer, or replicated without a policy. `shape` is that of the stored elements.
/// Errors: mismatch, when the placement has no room for exactly this tensor.
Placement place(const PlacementPolicy& policy, const std::string& name, const TensorMemory& memory);

}  // namespace cairn::detail
