#include "torch/tensor_memory.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "base/throw.hpp"

namespace cairn::detail {
namespace {

DType stored_dtype(const std::string& name, const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kByte:
    case at::kQUInt8:
    case at::kQUInt4x2:
    case at::kQUInt2x4:
      return DType::u8;
    case at::kChar:
    case at::kQInt8:
      return DType::i8;
    case at::kShort:
      return DType::i16;
    case at::kInt:
    case at::kQInt32:
      return DType::i32;
    case at::kLong:
      return DType::i64;
    case at::kHalf:
      return DType::f16;
    case at::kBFloat16:
      return DType::bf16;
    case at::kFloat:
      return DType::f32;
    case at::kDouble:
      return DType::f64;
    case at::kComplexHalf:
      return DType::c32;
    case at::kComplexFloat:
      return DType::c64;
    case at::kComplexDouble:
      return DType::c128;
    case at::kBool:
      return DType::boolean;
    default:
      fail(Errc::unsupported, "tensor '{}': cairn has no element type for {}", name,
           c10::toString(tensor.scalar_type()));
  }
}

TensorMemory describe(const std::string& name, const at::Tensor& tensor) {
  if (tensor.layout() != at::kStrided || tensor.is_meta()) {
    fail(Errc::unsupported,
         "tensor '{}' is {}; only dense (strided) tensors with memory can be saved and loaded",
         name, tensor.is_meta() ? "on the meta device" : "sparse or has a layout of its own");
  }
  TensorMemory memory{tensor, tensor, stored_dtype(name, tensor), shape_of(tensor)};
  if (is_packed(tensor)) {
    if (!tensor.is_contiguous() || tensor.storage_offset() != 0 || !tensor.device().is_cpu()) {
      fail(Errc::unsupported,
           "tensor '{}' is {} but not a contiguous CPU tensor of its own; make it so with clone()",
           name, c10::toString(tensor.scalar_type()));
    }
    memory.shape = {tensor.storage().nbytes()};
  }
  return memory;
}

bool is_dense_memory(const at::Tensor& tensor) {
  return tensor.device().is_cpu() && tensor.is_contiguous() && !tensor.is_conj() &&
         !tensor.is_neg();
}

std::string sizes_text(const at::Tensor& tensor) { return to_string(shape_of(tensor)); }

}  // namespace

Shape shape_of(const at::Tensor& tensor) { return {tensor.sizes().begin(), tensor.sizes().end()}; }

bool is_packed(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kQUInt4x2 || tensor.scalar_type() == at::kQUInt2x4;
}

TensorMemory memory_for_save(const std::string& name, const at::Tensor& tensor) {
  TensorMemory memory = describe(name, tensor);
  if (!is_dense_memory(tensor)) {
    const at::NoGradGuard no_grad;
    memory.dense = tensor.detach().to(at::kCPU).resolve_conj().resolve_neg().contiguous();
  }
  return memory;
}

TensorMemory memory_for_load(const std::string& name, const at::Tensor& tensor) {
  // A quantised copy takes its quantizer from its source.
  if (tensor.is_quantized()) return memory_for_save(name, tensor);
  TensorMemory memory = describe(name, tensor);
  if (!is_dense_memory(tensor)) {
    memory.dense = at::empty(tensor.sizes(), tensor.options().device(at::kCPU).requires_grad(false),
                             at::MemoryFormat::Contiguous);
  }
  return memory;
}

void finish_load(const TensorMemory& memory) {
  if (!memory.staged()) {
    // The bytes were written behind autograd's back: graphs that saved the old ones must notice.
    if (!memory.tensor.is_inference()) memory.tensor.unsafeGetTensorImpl()->bump_version();
    return;
  }
  const at::NoGradGuard no_grad;
  at::Tensor to = memory.tensor.detach();
  at::Tensor from = memory.dense;
  // Expanded dimensions are one element in memory, which copy_ refuses to write many times.
  for (std::int64_t d = 0; d < to.dim(); ++d) {
    if (to.stride(d) == 0 && to.size(d) > 1) {
      to = to.narrow(d, 0, 1);
      from = from.narrow(d, 0, 1);
    }
  }
  to.copy_(from);
}

Placement place(const PlacementPolicy& policy, const std::string& name,
                const TensorMemory& memory) {
  const Placement placement =
      policy ? policy(name, memory.tensor) : Placement::replicated(memory.shape);
  if (memory.tensor.is_quantized()) {
    if (placement.kind != Placement::Kind::replicated) {
      fail(Errc::unsupported,
           "tensor '{}' is quantised and placed as {}; quantised tensors can only be replicated",
           name, to_string(placement.kind));
    }
    return Placement::replicated(memory.shape);
  }
  const bool flat = placement.kind == Placement::Kind::flat;
  const bool fits = flat ? placement.elements() == element_count(memory.shape)
                         : placement.box.count == memory.shape;
  if (!fits) {
    fail(Errc::mismatch,
         "tensor '{}': the placement policy answers {} piece {} of global shape {}, but the local "
         "tensor has sizes {}",
         name, to_string(placement.kind), to_string(placement.box),
         to_string(placement.global_shape), sizes_text(memory.tensor));
  }
  return placement;
}

}  // namespace cairn::detail
