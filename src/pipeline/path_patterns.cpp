#include "pipeline/path_patterns.hpp"

#include <algorithm>
#include <set>

#include "base/near_names.hpp"
#include "base/throw.hpp"

namespace cairn::detail {
namespace {

std::vector<std::string> components_of(std::string_view path) {
  std::vector<std::string> components;
  for (std::size_t at = 0;;) {
    const std::size_t end = std::min(path.find('.', at), path.size());
    components.emplace_back(path.substr(at, end - at));
    if (end == path.size()) return components;
    at = end + 1;
  }
}

/// * and ?, in linear space and at most quadratic time.
bool fits(std::string_view pattern, std::string_view text) {
  std::size_t p = 0;
  std::size_t star = std::string_view::npos;
  std::size_t resume = 0;
  for (std::size_t t = 0; t < text.size();) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

/// Whether the pattern is used up at the end of some component.
bool takes(const std::vector<std::string>& pattern, const std::vector<std::string>& path) {
  // reached[c]: the components of the pattern so far can stand for the first c of the path.
  std::vector<bool> reached(path.size() + 1, false);
  reached[0] = true;
  for (const std::string& component : pattern) {
    if (component == "**") {
      for (std::size_t c = 0; c < path.size(); ++c) reached[c + 1] = reached[c + 1] || reached[c];
      continue;
    }
    for (std::size_t c = path.size(); c > 0; --c) {
      reached[c] = reached[c - 1] && fits(component, path[c - 1]);
    }
    reached[0] = false;
  }
  return std::find(reached.begin(), reached.end(), true) != reached.end();
}

/// The paths and all modules above them.
std::set<std::string_view> with_parents(const std::vector<std::string>& paths) {
  std::set<std::string_view> all;
  for (const std::string_view path : paths) {
    for (std::size_t end = 0; end != std::string_view::npos;) {
      end = path.find('.', end + 1);
      all.insert(path.substr(0, end));
    }
  }
  return all;
}

}  // namespace

PathPatterns::PathPatterns(const std::vector<std::string>& patterns) {
  for (const std::string& text : patterns) patterns_.push_back({text, components_of(text)});
}

bool PathPatterns::matches(std::string_view path) const {
  const auto components = components_of(path);
  return std::any_of(patterns_.begin(), patterns_.end(),
                     [&](const Pattern& pattern) { return takes(pattern.components, components); });
}

std::vector<std::uint64_t> PathPatterns::hits(const std::vector<std::string>& paths) const {
  std::vector<std::uint64_t> hits(patterns_.size(), 0);
  for (const std::string& path : paths) {
    const auto components = components_of(path);
    for (std::size_t p = 0; p < patterns_.size(); ++p) {
      if (takes(patterns_[p].components, components)) ++hits[p];
    }
  }
  return hits;
}

void require_hits(const PathPatterns& patterns, const std::vector<std::uint64_t>& hits,
                  std::string_view user, std::string_view what,
                  const std::vector<std::string>& paths) {
  for (std::size_t p = 0; p < patterns.size(); ++p) {
    if (hits[p] != 0) continue;
    const auto all = with_parents(paths);
    const std::string near = list_near(patterns.text(p), {all.begin(), all.end()});
    fail(Errc::not_found, "{}: the model has no {} '{}'{}{}", user, what, patterns.text(p),
         near.empty() ? "" : "; near names: ", near);
  }
}

}  // namespace cairn::detail
