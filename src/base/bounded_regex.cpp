#include "base/bounded_regex.hpp"

#include <algorithm>
#include <cstdint>
#include <regex>

#include "base/throw.hpp"

namespace cairn::detail {
namespace {

constexpr std::size_t kLongestPattern = 512;
constexpr std::uint64_t kMostRepeats = 100;

/// Refuses patterns whose automaton would be large: it is walked recursively.
void check_bounds(const std::string& pattern, std::string_view what) {
  if (pattern.size() > kLongestPattern) {
    fail(Errc::usage, "{} has {} characters; at most {} are allowed", what, pattern.size(),
         kLongestPattern);
  }
  std::uint64_t repeats = 1;
  for (std::size_t at = 0; at < pattern.size(); ++at) {
    if (pattern[at] == '\\') {
      ++at;
      continue;
    }
    if (pattern[at] != '{') continue;
    std::uint64_t most = 1;
    std::uint64_t number = 0;
    for (++at; at < pattern.size() && pattern[at] != '}'; ++at) {
      const char c = pattern[at];
      number = c >= '0' && c <= '9' ? number * 10 + static_cast<std::uint64_t>(c - '0') : 0;
      most = std::max(most, number);
      if (most > kMostRepeats) break;
    }
    repeats *= most;
    if (repeats > kMostRepeats) {
      fail(Errc::usage, "{}, '{}', repeats more than {} times", what, pattern, kMostRepeats);
    }
  }
}

/// libstdc++ matches in polynomial time when told so, and then refuses back-references; otherwise a
/// pattern such as (a*)*b takes forever.
constexpr std::regex::flag_type flags() {
#ifdef __GLIBCXX__
  return std::regex::ECMAScript | std::regex_constants::__polynomial;
#else
  return std::regex::ECMAScript;
#endif
}

}  // namespace

struct BoundedRegex::Compiled {
  std::regex regex;
};

BoundedRegex::BoundedRegex(const std::string& pattern, std::string_view what) {
  check_bounds(pattern, what);
  try {
    compiled_ = std::make_unique<Compiled>(std::regex(pattern, flags()));
  } catch (const std::regex_error& error) {
    fail(Errc::usage, "{}, '{}', is none that cairn takes: {}", what, pattern, error.what());
  }
}

BoundedRegex::~BoundedRegex() = default;
BoundedRegex::BoundedRegex(BoundedRegex&&) noexcept = default;
BoundedRegex& BoundedRegex::operator=(BoundedRegex&&) noexcept = default;

bool BoundedRegex::found_in(std::string_view text) const {
  return std::regex_search(text.begin(), text.end(), compiled_->regex);
}

std::string BoundedRegex::replaced_in(const std::string& text, const std::string& by) const {
  return std::regex_replace(text, compiled_->regex, by);
}

}  // namespace cairn::detail
