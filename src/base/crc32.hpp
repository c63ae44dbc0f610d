#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace cairn::detail {

/// CRC-32 as in gzip and ZIP (CRC-32/ISO-HDLC in https://reveng.sourceforge.io/crc-catalogue/),
/// continued from `crc`, that of the bytes before, at first 0. Local.
std::uint32_t crc32_update(std::uint32_t crc, std::span<const std::byte> bytes);
/// The CRC of two runs of bytes, one behind the other, from those of each; the second has `bytes`
/// bytes. Local.
std::uint32_t crc32_joined(std::uint32_t first, std::uint32_t second, std::uint64_t bytes);

}  // namespace cairn::detail
