#include "formats/torch/numpy.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <utility>

#include "base/throw.hpp"
#include "formats/pickle/texts.hpp"
#include "formats/torch/tensor.hpp"

namespace cairn::detail::torch {
namespace {

using pickle::Class;
using pickle::Graph;
using pickle::Kind;
using pickle::Ref;

struct Row {
  std::string_view code;
  std::string_view name;
  DType dtype;
};

constexpr std::array kTypes{
    Row{"f8", "float64", DType::f64},      Row{"f4", "float32", DType::f32},
    Row{"f2", "float16", DType::f16},      Row{"i8", "int64", DType::i64},
    Row{"i4", "int32", DType::i32},        Row{"i2", "int16", DType::i16},
    Row{"i1", "int8", DType::i8},          Row{"u8", "uint64", DType::u64},
    Row{"u4", "uint32", DType::u32},       Row{"u2", "uint16", DType::u16},
    Row{"u1", "uint8", DType::u8},         Row{"b1", "bool", DType::boolean},
    Row{"c16", "complex128", DType::c128}, Row{"c8", "complex64", DType::c64},
};

[[noreturn]] void nonsense() { fail(Errc::corrupt, "the record of a NumPy array is broken"); }

/// dtype(code, align, copy), and a state whose second value is the order of the bytes.
std::string type_of(const Graph& graph, Ref ref) {
  if (graph.kind(ref) != Kind::object || graph.class_of(ref) != Class::numpy_dtype) nonsense();
  const pickle::Object& object = graph.object(ref);
  const auto args = graph.elements(object.args);
  if (args.empty() || graph.kind(args[0]) != Kind::text) nonsense();
  std::string type(graph.text(args[0]));
  std::string order = "|";
  if (object.state != pickle::kNoRef) {
    const auto state = graph.elements(object.state);
    if (state.size() > 1 && graph.kind(state[1]) == Kind::text) order = graph.text(state[1]);
  }
  if (order == "=") order = "<";
  return order + type;
}

std::optional<DType> dtype_of(std::string_view type) {
  for (const Row& row : kTypes) {
    if (row.code == type.substr(1)) return row.dtype;
  }
  return std::nullopt;
}

Shape shape_of(const Graph& graph, Ref ref) {
  if (graph.kind(ref) != Kind::tuple) nonsense();
  if (graph.elements(ref).size() > kMostDimensions) {
    fail(Errc::unsupported, "a NumPy array has {} dimensions; at most {} are read",
         graph.elements(ref).size(), kMostDimensions);
  }
  Shape shape;
  for (const Ref count : graph.elements(ref)) {
    if (graph.kind(count) != Kind::integer || graph.integer(count) < 0) nonsense();
    shape.push_back(static_cast<std::uint64_t>(graph.integer(count)));
  }
  return shape;
}

void reverse_bytes(std::vector<std::byte>& bytes, DType dtype) {
  const bool complex = dtype == DType::c64 || dtype == DType::c128;
  const std::size_t unit = item_bytes(dtype) / (complex ? 2 : 1);
  for (std::size_t i = 0; i + unit <= bytes.size(); i += unit) {
    std::reverse(bytes.begin() + static_cast<std::ptrdiff_t>(i),
                 bytes.begin() + static_cast<std::ptrdiff_t>(i + unit));
  }
}

/// Column-major to row-major.
std::vector<std::byte> by_rows(const std::vector<std::byte>& columns, const Shape& shape,
                               std::size_t item) {
  std::vector<std::byte> rows(columns.size());
  Shape index(shape.size());
  for (std::size_t to = 0; to < rows.size(); to += item) {
    std::size_t from = 0;
    for (std::size_t d = shape.size(); d-- > 0;) from = from * shape[d] + index[d];
    std::memcpy(rows.data() + to, columns.data() + from * item, item);
    for (std::size_t d = shape.size(); d-- > 0 && ++index[d] == shape[d];) index[d] = 0;
  }
  return rows;
}

/// As numpy.transpose(): dimension d of the result is dimension `order[d]`.
void transpose(NumpyArray& array, const Shape& order) {
  Shape sorted = order;
  std::sort(sorted.begin(), sorted.end());
  bool permutes = order.size() == array.shape.size();
  for (std::size_t d = 0; permutes && d < sorted.size(); ++d) permutes = sorted[d] == d;
  if (!permutes) nonsense();
  const std::size_t item = item_bytes(*array.dtype);
  Shape strides(order.size());  // of the array as it is, in bytes
  std::uint64_t stride = item;
  for (std::size_t d = order.size(); d-- > 0; stride *= array.shape[d]) strides[d] = stride;
  Shape shape;
  for (const std::uint64_t from : order) shape.push_back(array.shape[from]);
  std::vector<std::byte> bytes(array.bytes.size());
  Shape index(order.size());
  for (std::size_t to = 0; to < bytes.size(); to += item) {
    std::size_t from = 0;
    for (std::size_t d = 0; d < order.size(); ++d) from += index[d] * strides[order[d]];
    std::memcpy(bytes.data() + to, array.bytes.data() + from, item);
    for (std::size_t d = shape.size(); d-- > 0 && ++index[d] == shape[d];) index[d] = 0;
  }
  array.shape = std::move(shape);
  array.bytes = std::move(bytes);
}

NumpyArray make(const Graph& graph, Ref type, Shape shape, bool columns, Ref data) {
  NumpyArray array;
  array.type = type_of(graph, type);
  array.dtype = dtype_of(array.type);
  array.shape = std::move(shape);
  if (!array.dtype) return array;
  std::string decoded;  // Python 2's bytes
  std::string_view raw;
  switch (graph.kind(data)) {
    case Kind::bytes:
    case Kind::bytearray:
      raw = graph.text(data);
      break;
    case Kind::text:
      if (!pickle::latin1_of(graph.text(data), decoded)) nonsense();
      raw = decoded;
      break;
    default:
      nonsense();
  }
  std::uint64_t bytes = item_bytes(*array.dtype);
  for (const std::uint64_t count : array.shape) {
    if (__builtin_mul_overflow(bytes, count, &bytes)) nonsense();
  }
  if (raw.size() != bytes) nonsense();
  const auto span = std::as_bytes(std::span(raw));
  array.bytes.assign(span.begin(), span.end());
  if (array.type.front() == '>') reverse_bytes(array.bytes, *array.dtype);
  if (columns) array.bytes = by_rows(array.bytes, array.shape, item_bytes(*array.dtype));
  return array;
}

}  // namespace

std::optional<NumpyArray> numpy_array_of(const Graph& graph, Ref ref) {
  if (graph.kind(ref) != Kind::object) return std::nullopt;
  const pickle::Object& object = graph.object(ref);
  const auto args = graph.elements(object.args);
  switch (graph.class_of(ref)) {
    case Class::numpy_scalar:  // scalar(dtype, bytes)
      if (args.size() != 2) nonsense();
      return make(graph, args[0], {}, false, args[1]);
    case Class::numpy_frombuffer: {  // _frombuffer(bytes, dtype, shape, order, axis_order)
      if (args.size() != 4 && args.size() != 5) nonsense();
      const bool columns = graph.is_text(args[3], "F");
      NumpyArray array = make(graph, args[1], shape_of(graph, args[2]), columns, args[0]);
      if (graph.is_text(args[3], "K") && args.size() == 5 && array.dtype) {
        if (graph.kind(args[4]) != Kind::none) transpose(array, shape_of(graph, args[4]));
      }
      return array;
    }
    case Class::numpy_reconstruct: {  // its state: (version, shape, dtype, by columns, bytes)
      const bool plain = !args.empty() && graph.class_of(args[0]) == Class::numpy_ndarray;
      if (!plain || object.state == pickle::kNoRef) return std::nullopt;
      const auto state = graph.elements(object.state);
      if (state.size() != 5) nonsense();
      const bool columns = graph.kind(state[3]) == Kind::boolean && graph.boolean(state[3]);
      return make(graph, state[2], shape_of(graph, state[1]), columns, state[4]);
    }
    default:
      return std::nullopt;
  }
}

std::optional<DType> dtype_of_numpy(std::string_view name) {
  for (const Row& row : kTypes) {
    if (row.name == name) return row.dtype;
  }
  return std::nullopt;
}

std::string numpy_name(DType dtype) {
  for (const Row& row : kTypes) {
    if (row.dtype == dtype) return std::string(row.name);
  }
  return std::string(to_string(dtype));
}

}  // namespace cairn::detail::torch
