#include "checkpoint/filter.hpp"

#include <algorithm>
#include <regex>
#include <string>
#include <vector>

#include "base/near_names.hpp"
#include "base/throw.hpp"

namespace cairn::detail {
namespace {

constexpr std::size_t kLongestPattern = 512;
constexpr std::uint64_t kMostRepeats = 100;

/// Refuses patterns whose automaton would be large: it is walked recursively.
void check_bounds(const std::string& pattern) {
  if (pattern.size() > kLongestPattern) {
    fail(Errc::usage, "the regex of the filter has {} characters; at most {} are allowed",
         pattern.size(), kLongestPattern);
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
      fail(Errc::usage, "the regex of the filter, '{}', repeats more than {} times", pattern,
           kMostRepeats);
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

struct CompiledFilter::Pattern {
  std::regex regex;
};

CompiledFilter::CompiledFilter(const TensorFilter& filter)
    : filter_(filter), names_(filter.names.begin(), filter.names.end()) {
  if (filter.regex.empty()) return;
  check_bounds(filter.regex);
  try {
    pattern_ = std::make_unique<Pattern>(std::regex(filter.regex, flags()));
  } catch (const std::regex_error& error) {
    fail(Errc::usage, "the regex of the filter, '{}', is none that cairn takes: {}", filter.regex,
         error.what());
  }
}

CompiledFilter::~CompiledFilter() = default;

bool CompiledFilter::matches(std::string_view name) const {
  if (filter_.is_empty()) return true;
  const auto starts = [&](const std::string& prefix) { return name.starts_with(prefix); };
  return names_.contains(name) ||
         std::any_of(filter_.prefixes.begin(), filter_.prefixes.end(), starts) ||
         (pattern_ && std::regex_search(name.begin(), name.end(), pattern_->regex));
}

void CompiledFilter::require_in(const Manifest& manifest) const {
  if (filter_.is_empty()) return;
  std::vector<std::string_view> all;
  all.reserve(manifest.tensors.size());
  for (std::size_t t = 0; t < manifest.tensors.size(); ++t) {
    all.push_back(manifest.tensors.head(t).name);
  }
  const auto require = [&](std::string_view kind, const std::string& text, auto&& fits) {
    if (fits()) return;
    fail(Errc::not_found, "'{}' has no tensor for the {} '{}' of the filter; near names: {}",
         manifest.path().string(), kind, text, list_near(text, all));
  };
  const auto any = [&](auto&& fits) { return std::any_of(all.begin(), all.end(), fits); };
  const TensorNames known(all);
  for (const std::string& wanted : filter_.names) {
    require("name", wanted, [&] { return known.contains(wanted); });
  }
  for (const std::string& prefix : filter_.prefixes) {
    require("prefix", prefix,
            [&] { return any([&](std::string_view name) { return name.starts_with(prefix); }); });
  }
  if (pattern_) {
    require("regex", filter_.regex, [&] {
      return any([&](std::string_view name) {
        return std::regex_search(name.begin(), name.end(), pattern_->regex);
      });
    });
  }
}

void update(Digester& digester, const TensorFilter& filter) {
  for (const auto* list : {&filter.prefixes, &filter.names}) {
    digester.update(static_cast<std::uint64_t>(list->size()));
    for (const std::string& text : *list) digester.update(std::string_view(text));
  }
  digester.update(std::string_view(filter.regex));
}

}  // namespace cairn::detail
