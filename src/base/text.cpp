#include "base/text.hpp"

#include <algorithm>

namespace cairn::detail {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";
constexpr std::size_t kMostShown = 300;

}  // namespace

std::string_view trimmed(std::string_view text) {
  const auto begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

std::string lower_case(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  });
  return result;
}

bool leaves_directory(std::string_view path) {
  if (path.empty() || path.front() == '/' || path.find('\0') != path.npos) return true;
  for (;;) {
    const std::size_t slash = path.find('/');
    if (path.substr(0, slash) == "..") return true;
    if (slash == path.npos) return false;
    path.remove_prefix(slash + 1);
  }
}

std::string printable(std::string_view text) {
  std::string result(text.substr(0, kMostShown));
  std::replace_if(
      result.begin(), result.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  if (text.size() > kMostShown) result += "...";
  return result;
}

}  // namespace cairn::detail
