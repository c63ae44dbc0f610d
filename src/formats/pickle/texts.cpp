#include "formats/pickle/texts.hpp"

#include <charconv>
#include <cstdint>
#include <limits>

#include "base/throw.hpp"
#include "base/utf8.hpp"

namespace cairn::detail::pickle {
namespace {

/// `count` digits of base `base` at `at`, which it moves on.
std::uint32_t digits_at(std::string_view raw, std::size_t& at, std::size_t count, int base,
                        const std::string& where) {
  const std::string_view digits = raw.substr(at, count);
  std::uint32_t value = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (digits.size() != count || error != std::errc() || end != digits.data() + count) {
    fail(Errc::corrupt, "{}: a broken escape in a text", where);
  }
  at += count;
  return value;
}

}  // namespace

void append_utf8(std::string& text, std::uint32_t point) {
  const auto byte = [&](std::uint32_t value) { text += static_cast<char>(value); };
  if (point < 0x80) {
    byte(point);
  } else if (point < 0x800) {
    byte(0xc0 | point >> 6);
    byte(0x80 | (point & 0x3f));
  } else if (point < 0x10000) {
    byte(0xe0 | point >> 12);
    byte(0x80 | (point >> 6 & 0x3f));
    byte(0x80 | (point & 0x3f));
  } else {
    byte(0xf0 | point >> 18);
    byte(0x80 | (point >> 12 & 0x3f));
    byte(0x80 | (point >> 6 & 0x3f));
    byte(0x80 | (point & 0x3f));
  }
}

bool latin1_of(std::string_view text, std::string& bytes) {
  bytes.clear();
  for (std::size_t at = 0; at < text.size();) {
    const auto point = next_code_point(text, at);
    if (!point || *point > 0xff) return false;
    bytes += static_cast<char>(*point);
  }
  return true;
}

std::string text_of_escapes(std::string_view raw, const std::string& where) {
  std::string text;
  for (std::size_t at = 0; at < raw.size();) {
    const auto byte = static_cast<unsigned char>(raw[at++]);
    const char kind = at < raw.size() ? raw[at] : '\0';
    if (byte == '\\' && kind == '\\') {
      text += "\\\\";  // both stay, and what follows is no escape
      ++at;
    } else if (byte == '\\' && (kind == 'u' || kind == 'U')) {
      ++at;
      const std::uint32_t point = digits_at(raw, at, kind == 'u' ? 4 : 8, 16, where);
      if (point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) {
        fail(Errc::corrupt, "{}: a text holds no character {:#x}", where, point);
      }
      append_utf8(text, point);
    } else {
      append_utf8(text, byte);
    }
  }
  return text;
}

std::string bytes_of_repr(std::string_view raw, const std::string& where) {
  const bool quoted =
      raw.size() >= 2 && raw.front() == raw.back() && (raw.front() == '\'' || raw.front() == '"');
  if (!quoted) fail(Errc::corrupt, "{}: a text without its quotes", where);
  raw = raw.substr(1, raw.size() - 2);
  constexpr std::string_view kEscapes = "\\'\"abfnrtv";
  constexpr std::string_view kMeanings = "\\'\"\a\b\f\n\r\t\v";
  std::string bytes;
  for (std::size_t at = 0; at < raw.size();) {
    const char byte = raw[at++];
    if (byte != '\\') {
      bytes += byte;
      continue;
    }
    if (at == raw.size()) fail(Errc::corrupt, "{}: a broken escape in a text", where);
    const char kind = raw[at];
    if (const std::size_t known = kEscapes.find(kind); known != std::string_view::npos) {
      bytes += kMeanings[known];
      ++at;
    } else if (kind == 'x') {
      ++at;
      bytes += static_cast<char>(digits_at(raw, at, 2, 16, where));
    } else if (kind >= '0' && kind <= '7') {
      std::size_t count = 1;
      while (count < 3 && at + count < raw.size() && raw[at + count] >= '0' &&
             raw[at + count] <= '7') {
        ++count;
      }
      bytes += static_cast<char>(digits_at(raw, at, count, 8, where));
    } else {
      bytes += byte;  // Python keeps the backslash of what is no escape
    }
  }
  return bytes;
}

double real_of_text(std::string_view text, const std::string& where) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (text == "inf") return kInfinity;
  if (text == "-inf") return -kInfinity;
  if (text == "nan" || text == "-nan") return std::numeric_limits<double>::quiet_NaN();
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    fail(Errc::corrupt, "{}: '{}' is no number", where, text.substr(0, 40));
  }
  return value;
}

}  // namespace cairn::detail::pickle
