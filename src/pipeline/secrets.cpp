#include "pipeline/secrets.hpp"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <string>

namespace cairn::detail {
namespace {

/// Shorter values are as likely to be a word that stands there for its own sake.
constexpr std::size_t kLeastBytes = 8;

}  // namespace

bool sounds_secret(std::string_view name) {
  std::string upper;
  for (const char c : name) upper += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  constexpr std::string_view kWords[] = {"SECRET",     "PASSWORD", "PASSWD",
                                         "PASSPHRASE", "TOKEN",    "CREDENTIAL"};
  return std::any_of(
             std::begin(kWords), std::end(kWords),
             [&](std::string_view word) { return upper.find(word) != std::string::npos; }) ||
         upper.ends_with("KEY") || upper.ends_with("KEY_ID");
}

bool holds_secret(std::string_view text) {
  for (char** each = environ; each != nullptr && *each != nullptr; ++each) {
    const std::string_view variable = *each;
    const auto name = variable.substr(0, variable.find('='));
    const auto value = variable.substr(std::min(name.size() + 1, variable.size()));
    if (value.size() >= kLeastBytes && text.find(value) != std::string_view::npos &&
        sounds_secret(name)) {
      return true;
    }
  }
  return false;
}

}  // namespace cairn::detail
