#include "formats/torch/tensor.hpp"

#include <span>
#include <string_view>

#include "base/throw.hpp"
#include "plan/region.hpp"

namespace cairn::detail::torch {
namespace {

using pickle::Class;
using pickle::Graph;
using pickle::Kind;
using pickle::Ref;

/// How much larger than its storage a tensor may be whose elements share bytes.
constexpr std::uint64_t kMostExpansion = 256 << 20;
/// Parameters around tensors around ...
constexpr int kMostWrappers = 8;

[[noreturn]] void nonsense(std::string_view what) {
  fail(Errc::corrupt, "a tensor's record is broken: {}", what);
}

/// The record of the tensor in a parameter or subclass.
std::span<const Ref> unwrap(const Graph& graph, Ref ref, Class& cls) {
  for (int i = 0; i < kMostWrappers; ++i) {
    if (!is_tensor(graph, ref)) nonsense("a parameter that is around no tensor");
    const auto args = graph.elements(graph.object(ref).args);
    cls = graph.class_of(ref);
    switch (cls) {
      case Class::rebuild_parameter:
      case Class::rebuild_parameter_with_state:
        if (args.empty()) nonsense("a parameter without a tensor");
        ref = args[0];
        continue;
      case Class::rebuild_from_type_v2: {  // (function, class, its arguments, state)
        if (args.size() < 3 || graph.kind(args[0]) != Kind::global ||
            graph.kind(args[2]) != Kind::tuple) {
          nonsense("a subclass without a tensor");
        }
        cls = graph.class_of(args[0]);
        const auto inner = graph.elements(args[2]);
        if (cls == Class::rebuild_parameter && !inner.empty()) {
          ref = inner[0];
          continue;
        }
        if (cls != Class::rebuild_tensor_v2 && cls != Class::rebuild_tensor_v3) {
          fail(Errc::unsupported,
               "cairn cannot read tensors made by '{}' (DTensor and other classes around tensors); "
               "save plain ones, for example full_tensor(), or use torch.distributed.checkpoint",
               graph.global(args[0]).qualified());
        }
        return inner;
      }
      default:
        return args;
    }
  }
  nonsense("parameters around each other");
}

/// The last argument may tell that the values are to be conjugated or negated.
void check_metadata(const Graph& graph, Ref ref) {
  const auto pairs = graph.pairs(ref);
  for (std::size_t i = 0; i < pairs.size(); i += 2) {
    if (graph.kind(pairs[i + 1]) != Kind::boolean || !graph.boolean(pairs[i + 1])) continue;
    fail(Errc::unsupported,
         "a tensor is stored conjugated or negated; save it with resolve_conj() or resolve_neg()");
  }
}

DType dtype_of(const Graph& graph, Class cls, std::span<const Ref> args, const Storage& storage) {
  if (cls == Class::rebuild_tensor_v2) {
    if (storage.untyped) nonsense("no type");
    return storage.dtype;
  }
  if (args.size() < 7 || graph.kind(args[6]) != Kind::global ||
      graph.class_of(args[6]) != Class::torch_dtype) {
    nonsense("no type");
  }
  const pickle::Global& type = graph.global(args[6]);
  const auto dtype = dtype_of_torch(type.name);
  if (!dtype) fail(Errc::unsupported, "cairn has no type like '{}'", type.qualified());
  return *dtype;
}

/// Checks that all elements lie in `room` bytes, and fills in the strides in bytes.
void check_bounds(Tensor& tensor, const Shape& strides, std::uint64_t start, std::uint64_t room) {
  const std::uint64_t item = item_bytes(tensor.dtype);
  std::uint64_t elements = 1;
  std::uint64_t bytes = 0;
  bool overflow = false;
  for (const std::uint64_t count : tensor.shape) {
    overflow |= count != 0 && __builtin_mul_overflow(elements, count, &elements);
  }
  for (const std::uint64_t count : tensor.shape) elements = count == 0 ? 0 : elements;
  overflow |= __builtin_mul_overflow(elements, item, &bytes) || bytes > std::uint64_t{1} << 62;
  if (overflow) nonsense("its size passes 64 bits");
  tensor.strides = row_major_strides(tensor.shape, item);
  if (elements == 0) return;

  std::uint64_t last = start;
  for (std::size_t d = 0; d < tensor.shape.size(); ++d) {
    std::uint64_t stride = 0;
    std::uint64_t way = 0;
    overflow |= __builtin_mul_overflow(strides[d], item, &stride) ||
                __builtin_mul_overflow(stride, tensor.shape[d] - 1, &way) ||
                __builtin_add_overflow(last, way, &last);
    if (tensor.shape[d] != 1 && stride != tensor.strides[d]) tensor.contiguous = false;
    tensor.strides[d] = stride;
  }
  if (overflow || last > room || item > room - last) nonsense("it leaves its storage");
  if (bytes > room && bytes - room > kMostExpansion) {
    fail(Errc::unsafe, "a tensor of {} bytes is a view of a storage of {}", bytes, room);
  }
  if (tensor.contiguous) tensor.strides = row_major_strides(tensor.shape, item);
}

}  // namespace

Shape numbers_of(const Graph& graph, Ref ref, std::string_view what) {
  if (graph.kind(ref) == Kind::object && graph.class_of(ref) == Class::torch_size) {
    const auto args = graph.elements(graph.object(ref).args);
    if (args.size() == 1) ref = args[0];
  }
  const Kind kind = graph.kind(ref);
  if (kind != Kind::tuple && kind != Kind::list) nonsense(what);
  if (graph.elements(ref).size() > kMostDimensions) {
    fail(Errc::unsupported, "{} has {} dimensions; at most {} are read", what,
         graph.elements(ref).size(), kMostDimensions);
  }
  Shape numbers;
  for (const Ref element : graph.elements(ref)) {
    if (graph.kind(element) != Kind::integer || graph.integer(element) < 0) nonsense(what);
    numbers.push_back(static_cast<std::uint64_t>(graph.integer(element)));
  }
  return numbers;
}

bool is_tensor(const Graph& graph, Ref ref) {
  if (graph.kind(ref) != Kind::object || !graph.object(ref).called) return false;
  switch (graph.class_of(ref)) {
    case Class::rebuild_tensor_v2:
    case Class::rebuild_tensor_v3:
    case Class::rebuild_parameter:
    case Class::rebuild_parameter_with_state:
    case Class::rebuild_from_type_v2:
    case Class::rebuild_other:
      return true;
    default:
      return false;
  }
}

Tensor tensor_of(const Graph& graph, Ref ref, const Storages& storages) {
  Class cls = Class::unknown;
  const auto args = unwrap(graph, ref, cls);
  if (cls == Class::rebuild_other) {
    const Ref callee = graph.object(ref).callee;
    fail(Errc::unsupported,
         "cairn reads no tensors made by '{}' (sparse, quantized, nested, ...); save them dense: "
         "to_dense(), dequantize()",
         graph.kind(callee) == Kind::global ? graph.global(callee).qualified() : "?");
  }
  // (storage, offset, size, stride, requires_grad, hooks[, dtype][, metadata])
  const std::size_t least = cls == Class::rebuild_tensor_v3 ? 7 : 4;
  if (args.size() < least) nonsense("arguments are missing");
  const auto view = storages.views.find(args[0]);
  if (view == storages.views.end()) nonsense("no storage");
  if (args.size() == least + (least == 4 ? 3 : 1)) check_metadata(graph, args.back());

  const Storage& storage = storages.all[view->second.storage];
  Tensor tensor;
  tensor.storage = view->second.storage;
  tensor.dtype = dtype_of(graph, cls, args, storage);
  tensor.shape = numbers_of(graph, args[2], "its shape");
  const Shape strides = numbers_of(graph, args[3], "its strides");
  if (strides.size() != tensor.shape.size()) nonsense("shape and strides differ in rank");
  std::uint64_t start = 0;
  const bool placed = graph.kind(args[1]) == Kind::integer && graph.integer(args[1]) >= 0 &&
                      !__builtin_mul_overflow(static_cast<std::uint64_t>(graph.integer(args[1])),
                                              item_bytes(tensor.dtype), &start);
  if (!placed) nonsense("its offset");
  check_bounds(tensor, strides, start, view->second.bytes);
  tensor.first = view->second.first + start;
  return tensor;
}

}  // namespace cairn::detail::torch
