#include "formats/torch/numpy_scalar.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/sha256.hpp"
#include "formats/pickle/texts.hpp"
#include "formats/torch/leaves.hpp"
#include "formats/torch/numpy.hpp"
#include "formats/torch/numpy_time.hpp"
#include "manifest/small_floats.hpp"

namespace cairn::detail::torch {

using Json = nlohmann::ordered_json;

namespace {

/// Of both parts of a complex number, the second one is element 1.
template <class T>
T element(const NumpyArray& array, std::size_t number = 0) {
  T value;
  std::memcpy(&value, array.bytes.data() + number * sizeof(T), sizeof(T));
  return value;
}

template <class T>
Json complex_leaf(const std::string& type, const NumpyArray& array) {
  return {{"type", type},
          {"value", {number_json(element<T>(array, 0)), number_json(element<T>(array, 1))}}};
}

Json leaf(const std::string& type, Json value) {
  return {{"type", type}, {"value", std::move(value)}};
}

std::optional<Json> number_leaf(const NumpyArray& array) {
  const std::string type = "numpy." + numpy_name(*array.dtype);
  const auto integer = [&](auto value) { return leaf(type, integer_json(value)); };
  switch (*array.dtype) {
    case DType::f64:
      return float_leaf(type, element<double>(array));
    case DType::f32:
      return float_leaf(type, element<float>(array));
    case DType::f16:
      return float_leaf(type, f16_value(element<std::uint16_t>(array)));
    case DType::c128:
      return complex_leaf<double>(type, array);
    case DType::c64:
      return complex_leaf<float>(type, array);
    case DType::i64:
      return integer(element<std::int64_t>(array));
    case DType::i32:
      return integer(std::int64_t{element<std::int32_t>(array)});
    case DType::i16:
      return integer(std::int64_t{element<std::int16_t>(array)});
    case DType::i8:
      return integer(std::int64_t{element<std::int8_t>(array)});
    case DType::u64:
      return integer(element<std::uint64_t>(array));
    case DType::u32:
      return integer(std::uint64_t{element<std::uint32_t>(array)});
    case DType::u16:
      return integer(std::uint64_t{element<std::uint16_t>(array)});
    case DType::u8:
      return integer(std::uint64_t{element<std::uint8_t>(array)});
    case DType::boolean:
      return leaf(type, element<std::uint8_t>(array) != 0);
    default:
      return std::nullopt;
  }
}

/// UTF-32, of either byte order, as UTF-8; nothing where it is none. NUL fills it up.
std::optional<std::string> text_of(const NumpyArray& array) {
  std::string text;
  for (std::size_t i = 0; i + 4 <= array.bytes.size(); i += 4) {
    auto code = element<std::uint32_t>(array, i / 4);
    if (array.type.order == '>') code = __builtin_bswap32(code);
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return std::nullopt;
    pickle::append_utf8(text, code);
  }
  text.erase(text.find_last_not_of('\0') + 1);
  return text;
}

}  // namespace

std::optional<Json> numpy_scalar_of(const pickle::Graph& graph, pickle::Ref ref) {
  const auto array = numpy_array_of(graph, ref);
  if (!array || array->bytes.empty() != (array->type.bytes() == 0)) return std::nullopt;
  if (array->dtype) return number_leaf(*array);
  if (array->bytes.size() != array->type.bytes()) return std::nullopt;
  const std::string type = "numpy." + array->type.name();
  const std::span<const std::byte> bytes = array->bytes;
  std::string_view raw(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  switch (array->type.code.front()) {
    case 'U': {
      const auto text = text_of(*array);
      return text ? std::optional(leaf(type, *text)) : std::nullopt;
    }
    case 'S':
      return leaf(type, to_hex(bytes.first(raw.find_last_not_of('\0') + 1)));
    case 'V':
      return array->type.has_fields ? std::nullopt : std::optional(leaf(type, to_hex(bytes)));
    case 'M':
    case 'm': {
      if (raw.size() != sizeof(std::int64_t)) return std::nullopt;
      auto count = element<std::int64_t>(*array);
      if (array->type.order == '>')
        count = static_cast<std::int64_t>(__builtin_bswap64(static_cast<std::uint64_t>(count)));
      const bool is_date = array->type.code.front() == 'M';
      return leaf(type, (is_date ? datetime_json : timedelta_json)(count, array->type.step,
                                                                   array->type.unit));
    }
    default:
      return std::nullopt;
  }
}

}  // namespace cairn::detail::torch
