#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <utility>

#include "base/crc32.hpp"
#include "base/throw.hpp"
#include "formats/torch/zip.hpp"

namespace cairn::detail {
namespace {

/// What a small member becomes when it is unpacked must not fill the memory.
void check_unpacked(const ZipMember& member) {
  constexpr std::uint64_t kMostRatio = 1032;  // 258 bytes take deflate two bits
  constexpr std::uint64_t kMostGrowth = 64 << 20;
  if (member.unpacked_bytes / kMostRatio > member.bytes) {
    fail(Errc::corrupt, "zip member '{}' claims {} bytes, which its {} can't hold", member.name,
         member.unpacked_bytes, member.bytes);
  }
  if (member.unpacked_bytes > member.bytes && member.unpacked_bytes - member.bytes > kMostGrowth) {
    fail(Errc::unsafe,
         "zip member '{}' grows from {} to {} bytes when it is unpacked; at most {} MiB "
         "more are",
         member.name, member.bytes, member.unpacked_bytes, kMostGrowth >> 20);
  }
}

}  // namespace

std::vector<std::byte> ZipTable::bytes_of(const File& file, const ZipMember& member) const {
  if (member.offset >= tail_start_) {
    const auto first = tail_.begin() + static_cast<std::ptrdiff_t>(member.offset - tail_start_);
    return {first, first + static_cast<std::ptrdiff_t>(member.bytes)};
  }
  std::vector<std::byte> data(member.bytes);
  file.read_at(member.offset, data);
  return data;
}

std::vector<std::byte> ZipTable::read_member(const File& file, const ZipMember& member,
                                             std::uint64_t most_bytes) const {
  if (member.bytes > most_bytes || member.unpacked_bytes > most_bytes) {
    fail(Errc::unsafe, "zip member '{}' has {} bytes; at most {} are read", member.name,
         std::max(member.bytes, member.unpacked_bytes), most_bytes);
  }
  if (member.method == 8) check_unpacked(member);
  std::vector<std::byte> data = bytes_of(file, member);
  if (member.method == 8) {
    std::vector<std::byte> unpacked(member.unpacked_bytes);
    inflate_state state;
    isal_inflate_init(&state);
    state.next_in = reinterpret_cast<std::uint8_t*>(data.data());
    state.avail_in = static_cast<std::uint32_t>(data.size());
    state.next_out = reinterpret_cast<std::uint8_t*>(unpacked.data());
    state.avail_out = static_cast<std::uint32_t>(unpacked.size());
    if (isal_inflate_stateless(&state) != ISAL_DECOMP_OK || state.avail_out != 0) {
      fail(Errc::corrupt, "zip member '{}' can't be unpacked", member.name);
    }
    data = std::move(unpacked);
  } else if (member.method != 0) {
    fail(Errc::unsupported, "zip member '{}' is compressed by method {}", member.name,
         member.method);
  }
  const std::uint32_t crc = crc32_update(0, data);
  if (member.crc && crc != *member.crc) {
    fail(Errc::corrupt, "zip member '{}' is damaged: its CRC-32 is {:08x} instead of {:08x}",
         member.name, crc, *member.crc);
  }
  return data;
}

}  // namespace cairn::detail
