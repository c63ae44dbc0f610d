#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "cairn/dtype.hpp"

namespace cairn::detail {

/// The names that safetensors gives to the dtypes of cairn. It has others (of less than a byte, for
/// example), and cairn has two that it lacks. In the order in which the format's library writes
/// tensors: those that need the widest alignment first.
inline constexpr std::array kSafetensorsDtypes{
    std::pair{DType::u64, std::string_view("U64")},
    std::pair{DType::i64, std::string_view("I64")},
    std::pair{DType::f64, std::string_view("F64")},
    std::pair{DType::c64, std::string_view("C64")},
    std::pair{DType::f32, std::string_view("F32")},
    std::pair{DType::u32, std::string_view("U32")},
    std::pair{DType::i32, std::string_view("I32")},
    std::pair{DType::bf16, std::string_view("BF16")},
    std::pair{DType::f16, std::string_view("F16")},
    std::pair{DType::u16, std::string_view("U16")},
    std::pair{DType::i16, std::string_view("I16")},
    std::pair{DType::f8_e4m3fn, std::string_view("F8_E4M3")},
    std::pair{DType::f8_e5m2, std::string_view("F8_E5M2")},
    std::pair{DType::i8, std::string_view("I8")},
    std::pair{DType::u8, std::string_view("U8")},
    std::pair{DType::boolean, std::string_view("BOOL")},
};

inline std::optional<DType> safetensors_dtype(std::string_view name) {
  for (const auto& [dtype, known] : kSafetensorsDtypes) {
    if (known == name) return dtype;
  }
  return std::nullopt;
}

}  // namespace cairn::detail
