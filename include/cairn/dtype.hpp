#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "cairn/export.hpp"

namespace cairn {

/// Element types. The values are the codes of the container's index (docs/format.md): never reuse
/// one.
enum class DType : std::uint8_t {
  f64 = 1,
  f32 = 2,
  f16 = 3,
  bf16 = 4,
  f8_e4m3fn = 5,
  f8_e5m2 = 6,
  i64 = 10,
  i32 = 11,
  i16 = 12,
  i8 = 13,
  u8 = 14,
  u16 = 15,
  u32 = 16,
  u64 = 17,
  boolean = 20,
  c128 = 30,
  c64 = 31,
  c32 = 32,
};

/// Bytes of one element. Local.
CAIRN_EXPORT std::size_t item_bytes(DType dtype);
/// "f32", "bf16", "bool", ... Local.
CAIRN_EXPORT std::string_view to_string(DType dtype);
/// Inverse of the code in an index. Errors: unsupported. Local.
CAIRN_EXPORT DType dtype_from_code(unsigned code);

}  // namespace cairn
