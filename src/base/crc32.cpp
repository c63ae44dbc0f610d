#include "base/crc32.hpp"

#include <isa-l/crc.h>

namespace cairn::detail {

std::uint32_t crc32_update(std::uint32_t crc, std::span<const std::byte> bytes) {
  return crc32_gzip_refl(crc, reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
}

}  // namespace cairn::detail
