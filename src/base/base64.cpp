#include "base/base64.hpp"

#include <cstdint>

#include "base/throw.hpp"

namespace cairn::detail {
namespace {

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string base64_of(std::span<const std::byte> bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t three = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      three = three << 8 | (i + k < bytes.size() ? static_cast<std::uint32_t>(bytes[i + k]) : 0);
    }
    const std::size_t digits = bytes.size() - i < 3 ? bytes.size() - i + 1 : 4;
    for (std::size_t k = 0; k < 4; ++k) {
      text += k < digits ? kDigits[three >> (18 - 6 * k) & 63] : '=';
    }
  }
  return text;
}

std::vector<std::byte> bytes_of_base64(std::string_view text) {
  std::vector<std::byte> bytes;
  const bool padded = text.size() % 4 == 0;
  std::uint32_t bits = 0;
  unsigned count = 0;
  while (text.ends_with('=') && count++ < 2) text.remove_suffix(1);
  count = 0;
  for (const char c : text) {
    const std::size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos || !padded) fail(Errc::corrupt, "a text is no base64");
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes.push_back(static_cast<std::byte>(bits >> count & 0xff));
  }
  return bytes;
}

}  // namespace cairn::detail
