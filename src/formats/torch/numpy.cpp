#include "formats/torch/numpy.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <span>
#include <string_view>
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

constexpr std::array<std::string_view, 13> kTimeUnits{"Y",  "M",  "W",  "D",  "h",  "m", "s",
                                                      "ms", "us", "ns", "ps", "fs", "as"};

/// The unit of times: (attributes, (name, step, divisor, events)).
void take_unit(const Graph& graph, Ref ref, NumpyType& type) {
  const auto parts = graph.elements(ref);
  const auto unit = parts.size() == 2 ? graph.elements(parts[1]) : std::span<const Ref>();
  if (unit.size() < 2) return;
  const Kind kind = graph.kind(unit[0]);
  if (kind != Kind::bytes && kind != Kind::text) return;
  if (graph.kind(unit[1]) != Kind::integer || graph.text(unit[0]) == "generic") return;
  if (std::find(kTimeUnits.begin(), kTimeUnits.end(), graph.text(unit[0])) == kTimeUnits.end())
    nonsense();
  type.unit = graph.text(unit[0]);
  type.step = graph.integer(unit[1]);
}

/// dtype(code, align, copy), and the state (version, order of the bytes, type of elements, names of
/// fields, fields, bytes, alignment, flags[, metadata]). A class as code is that of records.
NumpyType type_of(const Graph& graph, Ref ref) {
  if (graph.kind(ref) != Kind::object || graph.class_of(ref) != Class::numpy_dtype) nonsense();
  const pickle::Object& object = graph.object(ref);
  const auto args = graph.elements(object.args);
  const auto state =
      object.state == pickle::kNoRef ? std::span<const Ref>() : graph.elements(object.state);
  NumpyType type;
  if (args.empty()) nonsense();
  if (graph.kind(args[0]) == Kind::text && !graph.text(args[0]).empty()) {
    type.code = graph.text(args[0]);
  } else if (graph.kind(args[0]) == Kind::global && state.size() > 5 &&
             graph.kind(state[5]) == Kind::integer) {
    type.code = "V" + graph.decimal(state[5]);
  } else {
    nonsense();
  }
  if (type.code.front() == 'O') type.code = "O";  // its number is the size of an address
  if (state.size() > 1 && graph.is_text(state[1], "=")) type.order = '<';
  if (state.size() > 1 && (graph.is_text(state[1], "<") || graph.is_text(state[1], ">"))) {
    type.order = graph.text(state[1]).front();
  }
  type.has_fields = state.size() > 3 && graph.kind(state[3]) != Kind::none;
  const bool is_time = type.code == "M8" || type.code == "m8";
  if (is_time && state.size() > 8) take_unit(graph, state[8], type);
  return type;
}

std::optional<DType> dtype_of(std::string_view code) {
  for (const Row& row : kTypes) {
    if (row.code == code) return row.dtype;
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

/// The bytes that a record has as such, or, from Python 2, as a text.
std::optional<std::string_view> raw_of(const Graph& graph, Ref data, std::string& decoded) {
  switch (graph.kind(data)) {
    case Kind::bytes:
    case Kind::bytearray:
      return graph.text(data);
    case Kind::text:
      if (!pickle::latin1_of(graph.text(data), decoded)) return std::nullopt;
      return decoded;
    default:
      return std::nullopt;
  }
}

std::vector<std::byte> copied(std::string_view raw) {
  const auto span = std::as_bytes(std::span(raw));
  return {span.begin(), span.end()};
}

NumpyArray make(const Graph& graph, Ref type, Shape shape, bool columns, Ref data) {
  NumpyArray array;
  array.type = type_of(graph, type);
  array.dtype = dtype_of(array.type.code);
  array.shape = std::move(shape);
  if (!array.dtype) return array;
  std::string decoded;
  const auto raw = raw_of(graph, data, decoded);
  if (!raw) nonsense();
  std::uint64_t bytes = item_bytes(*array.dtype);
  for (const std::uint64_t count : array.shape) {
    if (__builtin_mul_overflow(bytes, count, &bytes)) nonsense();
  }
  if (raw->size() != bytes) nonsense();
  array.bytes = copied(*raw);
  if (array.type.order == '>') reverse_bytes(array.bytes, *array.dtype);
  if (columns) array.bytes = by_rows(array.bytes, array.shape, item_bytes(*array.dtype));
  return array;
}

NumpyArray make_scalar(const Graph& graph, Ref type, Ref data) {
  NumpyArray array = make(graph, type, {}, false, data);
  if (array.dtype) return array;
  std::string decoded;
  if (const auto raw = raw_of(graph, data, decoded)) array.bytes = copied(*raw);
  return array;
}

/// _reconstruct(class, shape, code), and the state (version, shape, dtype, by columns, bytes).
std::optional<NumpyArray> reconstructed(const Graph& graph, const pickle::Object& object) {
  const auto args = graph.elements(object.args);
  if (args.empty() || object.state == pickle::kNoRef) return std::nullopt;
  const auto state = graph.elements(object.state);
  if (state.size() != 5) {
    if (graph.class_of(args[0]) == Class::numpy_ndarray) nonsense();
    return std::nullopt;  // a class that has more to say
  }
  const bool columns = graph.kind(state[3]) == Kind::boolean && graph.boolean(state[3]);
  return make(graph, state[2], shape_of(graph, state[1]), columns, state[4]);
}

}  // namespace

std::uint64_t NumpyType::bytes() const {
  std::uint64_t size = 0;
  std::from_chars(code.data() + 1, code.data() + code.size(), size);
  constexpr std::uint64_t kMost = 1 << 30;
  return std::min(size, kMost) * (code.front() == 'U' ? 4 : 1);
}

std::string NumpyType::text() const {
  const std::string steps = step == 1 ? "" : std::to_string(step);
  return order + code + (unit.empty() ? "" : "[" + steps + unit + "]");
}

std::string NumpyType::name() const {
  if (const auto dtype = dtype_of(code)) return numpy_name(*dtype);
  constexpr std::string_view kNames[] = {"Ustr", "Sbytes", "Vvoid", "ffloat", "ccomplex"};
  for (const std::string_view name : kNames) {
    if (name.front() != code.front()) continue;
    return std::string(name.substr(1)) + (bytes() == 0 ? "" : std::to_string(8 * bytes()));
  }
  if (code == "M8") return "datetime64" + text().substr(3);
  if (code == "m8") return "timedelta64" + text().substr(3);
  return "object";
}

std::optional<NumpyArray> numpy_array_of(const Graph& graph, Ref ref) {
  if (graph.kind(ref) != Kind::object) return std::nullopt;
  const pickle::Object& object = graph.object(ref);
  const auto args = graph.elements(object.args);
  switch (graph.class_of(ref)) {
    case Class::numpy_scalar:  // scalar(dtype, bytes)
      if (args.size() != 2) nonsense();
      return make_scalar(graph, args[0], args[1]);
    case Class::numpy_frombuffer: {  // _frombuffer(bytes, dtype, shape, order, axis_order)
      if (args.size() != 4 && args.size() != 5) nonsense();
      const bool columns = graph.is_text(args[3], "F");
      NumpyArray array = make(graph, args[1], shape_of(graph, args[2]), columns, args[0]);
      if (graph.is_text(args[3], "K") && args.size() == 5 && array.dtype) {
        if (graph.kind(args[4]) != Kind::none) transpose(array, shape_of(graph, args[4]));
      }
      return array;
    }
    case Class::numpy_reconstruct:
      return reconstructed(graph, object);
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
