#pragma once

#include <bit>
#include <cstdint>

namespace cairn::detail {

/// A binary float of 1 sign bit, `Exponent` and `Mantissa` bits, biased and with subnormals as in
/// IEEE 754, as the equal f32. Without infinities (f8_e4m3fn, OCP 8-bit Floating Point
/// Specification 1.0) only the all-ones pattern is a NaN. Branch-free, so that loops over it
/// vectorise.
template <unsigned Exponent, unsigned Mantissa, bool Infinities = true>
float small_float(std::uint32_t bits) {
  constexpr std::uint32_t kTop = ((1U << Exponent) - 1) << Mantissa;
  constexpr std::uint32_t kFraction = (1U << Mantissa) - 1;
  constexpr std::uint32_t kBias = (1U << (Exponent - 1)) - 1;
  constexpr std::uint32_t kF32Infinity = 0x7f800000;
  // Moved to f32's places, the number is 2^(127 - bias) too small, subnormal or not.
  constexpr float kScale = std::bit_cast<float>((127 + 127 - kBias) << 23);
  const std::uint32_t magnitude = bits & (kTop | kFraction);
  const std::uint32_t moved = magnitude << (23 - Mantissa);
  const std::uint32_t finite = std::bit_cast<std::uint32_t>(std::bit_cast<float>(moved) * kScale);
  const bool special = Infinities ? magnitude >= kTop : magnitude == (kTop | kFraction);
  const std::uint32_t sign = (bits >> (Exponent + Mantissa) & 1U) << 31;
  return std::bit_cast<float>(sign | (special ? kF32Infinity | moved : finite));
}

inline float f16_value(std::uint16_t bits) { return small_float<5, 10>(bits); }
inline float bf16_value(std::uint16_t bits) {
  return std::bit_cast<float>(std::uint32_t{bits} << 16);
}
inline float f8_e4m3fn_value(std::uint8_t bits) { return small_float<4, 3, false>(bits); }
inline float f8_e5m2_value(std::uint8_t bits) { return small_float<5, 2>(bits); }

}  // namespace cairn::detail
