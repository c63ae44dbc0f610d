#include "base/crc64.hpp"

#include <isa-l/crc64.h>

#include <bit>

namespace cairn::detail {
namespace {

// Polynomials over GF(2) of degree below 64; bit 63 is the coefficient of x^0.
constexpr std::uint64_t kOne = std::uint64_t{1} << 63;
constexpr std::uint64_t kModulus = 0xC96C5795D7870F42;  // ECMA-182 without x^64

constexpr std::uint64_t times_x(std::uint64_t a) { return a >> 1 ^ (kModulus & -(a & 1)); }

constexpr std::uint64_t product(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  for (; a != 0; a <<= 1) {
    sum ^= b & -(a >> 63);
    b = times_x(b);
  }
  return sum;
}

/// x^(8 * 2^i) at i.
constexpr auto kPowers = [] {
  std::array<std::uint64_t, 64> powers{};
  std::uint64_t power = kOne >> 8;
  for (std::uint64_t& entry : powers) {
    entry = power;
    power = product(power, power);
  }
  return powers;
}();

}  // namespace

std::uint64_t crc64_update(std::uint64_t state, std::span<const std::byte> bytes) {
  // The library complements the register before and after.
  return ~crc64_ecma_refl(~state, reinterpret_cast<const unsigned char*>(bytes.data()),
                          bytes.size());
}

std::uint64_t crc64_skip(std::uint64_t state, std::uint64_t zeros) {
  if (state == 0) return 0;
  for (; zeros != 0; zeros &= zeros - 1) {
    state = product(state, kPowers[static_cast<std::size_t>(std::countr_zero(zeros))]);
  }
  return state;
}

Crc64Skip::Crc64Skip(std::uint64_t zeros) {
  std::array<std::uint64_t, 64> image{};  // of the register with one bit set
  std::uint64_t power = crc64_skip(kOne, zeros);
  for (std::size_t bit = 64; bit-- > 0; power = times_x(power)) image[bit] = power;
  for (std::size_t i = 0; i < tables_.size(); ++i) {
    tables_[i][0] = 0;
    for (std::size_t value = 1; value < 256; ++value) {
      const auto low = static_cast<std::size_t>(std::countr_zero(value));
      tables_[i][value] = tables_[i][value & (value - 1)] ^ image[8 * i + low];
    }
  }
}

}  // namespace cairn::detail
