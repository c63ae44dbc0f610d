#include "base/crc32.hpp"

#include <isa-l/crc.h>

namespace cairn::detail {
namespace {

// Polynomials over GF(2) of degree below 32; bit 31 is the coefficient of x^0.
constexpr std::uint32_t kOne = std::uint32_t{1} << 31;
constexpr std::uint32_t kModulus = 0xEDB88320;

std::uint32_t product(std::uint32_t a, std::uint32_t b) {
  std::uint32_t sum = 0;
  for (; a != 0; a <<= 1) {
    sum ^= b & -(a >> 31);
    b = b >> 1 ^ (kModulus & -(b & 1));
  }
  return sum;
}

}  // namespace

std::uint32_t crc32_update(std::uint32_t crc, std::span<const std::byte> bytes) {
  return crc32_gzip_refl(crc, reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
}

std::uint32_t crc32_joined(std::uint32_t first, std::uint32_t second, std::uint64_t bytes) {
  // The second run moves the first one's remainder on by x^(8 bytes).
  std::uint32_t power = kOne >> 8;
  for (; bytes != 0; bytes >>= 1) {
    if ((bytes & 1) != 0) first = product(first, power);
    power = product(power, power);
  }
  return first ^ second;
}

}  // namespace cairn::detail
