#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace cairn::detail {

/// CRC-64/XZ (ECMA-182, reflected; https://reveng.sourceforge.io/crc-catalogue/17plus.htm), as a
/// register: it starts at ~0, and the complement of its last value is the CRC. It is linear, so the
/// CRC of a whole is found from parts that were read anywhere, in any order (docs/format.md,
/// "Digests"). All functions are Local.

/// The register after `bytes`.
std::uint64_t crc64_update(std::uint64_t state, std::span<const std::byte> bytes);
/// The register after `zeros` zero bytes: times x^(8 zeros) modulo the polynomial.
std::uint64_t crc64_skip(std::uint64_t state, std::uint64_t zeros);

/// crc64_skip for one distance, many times.
class Crc64Skip {
 public:
  explicit Crc64Skip(std::uint64_t zeros);
  std::uint64_t operator()(std::uint64_t state) const {
    std::uint64_t result = 0;
    for (std::size_t i = 0; i < tables_.size(); ++i) result ^= tables_[i][state >> 8 * i & 0xff];
    return result;
  }

 private:
  std::array<std::array<std::uint64_t, 256>, 8> tables_;
};

}  // namespace cairn::detail
