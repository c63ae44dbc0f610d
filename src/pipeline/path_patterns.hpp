#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/export.hpp"

namespace cairn::detail {

/// Modules and parameters named by dotted paths, as configurations write them. A pattern takes the
/// module or parameter of that path and all below it: "encoder" takes "encoder" and
/// "encoder.0.weight", not "encoder2". In a component, * stands for any characters and ? for one;
/// a component ** stands for any number of components. All members are Local.
class CAIRN_EXPORT PathPatterns {
 public:
  explicit PathPatterns(const std::vector<std::string>& patterns);

  std::size_t size() const { return patterns_.size(); }
  const std::string& text(std::size_t pattern) const { return patterns_[pattern].text; }
  bool matches(std::string_view path) const;
  /// For each pattern, how many of `paths` it takes.
  std::vector<std::uint64_t> hits(const std::vector<std::string>& paths) const;

 private:
  struct Pattern {
    std::string text;
    std::vector<std::string> components;
  };
  std::vector<Pattern> patterns_;
};

/// A pattern that takes nothing must not pass in silence. `hits` counts over all ranks; `paths` are
/// what there is here, and `what` says what they are ("parameter"). Local.
/// Errors: not_found, with near names.
CAIRN_EXPORT void require_hits(const PathPatterns& patterns, const std::vector<std::uint64_t>& hits,
                               std::string_view user, std::string_view what,
                               const std::vector<std::string>& paths);

}  // namespace cairn::detail
