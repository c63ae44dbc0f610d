#include "base/utf8.hpp"

#include <cstring>

namespace cairn::detail {

std::optional<std::uint32_t> next_code_point(std::string_view text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::uint32_t first = byte(at++);
  if (first < 0x80) return first;
  if (first < 0xc2 || first > 0xf4) return std::nullopt;
  const std::size_t more = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
  if (text.size() - at < more) return std::nullopt;
  std::uint32_t point = first & (0x3fU >> more);
  for (std::size_t i = 0; i < more; ++i, ++at) {
    if ((byte(at) & 0xc0) != 0x80) return std::nullopt;
    point = point << 6 | (byte(at) & 0x3f);
  }
  constexpr std::uint32_t kLeast[] = {0x80, 0x800, 0x10000};
  const bool surrogate = point >= 0xd800 && point < 0xe000;
  if (point < kLeast[more - 1] || surrogate || point > 0x10ffff) return std::nullopt;
  return point;
}

bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    // Nearly all of a checkpoint's texts are ASCII: eight characters at a time.
    std::uint64_t eight = 0;
    if (text.size() - at >= sizeof(eight)) {
      std::memcpy(&eight, text.data() + at, sizeof(eight));
      if ((eight & 0x8080808080808080) == 0) {
        at += sizeof(eight);
        continue;
      }
    }
    if (!next_code_point(text, at)) return false;
  }
  return true;
}

}  // namespace cairn::detail
