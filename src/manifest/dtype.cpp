#include "cairn/dtype.hpp"

#include <array>

#include "base/throw.hpp"
#include "manifest/dtype_names.hpp"

namespace cairn {
namespace {

struct Row {
  DType dtype;
  std::size_t bytes;
  std::string_view name;
};

constexpr std::array kTable{
    Row{DType::f64, 8, "f64"},
    Row{DType::f32, 4, "f32"},
    Row{DType::f16, 2, "f16"},
    Row{DType::bf16, 2, "bf16"},
    Row{DType::f8_e4m3fn, 1, "f8_e4m3fn"},
    Row{DType::f8_e5m2, 1, "f8_e5m2"},
    Row{DType::i64, 8, "i64"},
    Row{DType::i32, 4, "i32"},
    Row{DType::i16, 2, "i16"},
    Row{DType::i8, 1, "i8"},
    Row{DType::u8, 1, "u8"},
    Row{DType::u16, 2, "u16"},
    Row{DType::u32, 4, "u32"},
    Row{DType::u64, 8, "u64"},
    Row{DType::boolean, 1, "bool"},
    Row{DType::c128, 16, "c128"},
    Row{DType::c64, 8, "c64"},
    Row{DType::c32, 4, "c32"},
};

const Row& row_of(DType dtype) {
  for (const Row& row : kTable) {
    if (row.dtype == dtype) return row;
  }
  detail::fail(Errc::internal, "dtype code {} is not in the table", static_cast<unsigned>(dtype));
}

}  // namespace

std::size_t item_bytes(DType dtype) { return row_of(dtype).bytes; }

std::string_view to_string(DType dtype) { return row_of(dtype).name; }

DType dtype_from_code(unsigned code) {
  for (const Row& row : kTable) {
    if (static_cast<unsigned>(row.dtype) == code) return row.dtype;
  }
  detail::fail(Errc::unsupported, "dtype code {} is unknown to this version of cairn", code);
}

namespace detail {

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const Row& row : kTable) {
    if (row.name == name) return row.dtype;
  }
  return std::nullopt;
}

}  // namespace detail

}  // namespace cairn
