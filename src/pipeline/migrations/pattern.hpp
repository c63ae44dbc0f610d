#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::detail::migrations {

/// What the parts of a pattern stand for in a name.
struct Match {
  std::vector<std::string> texts;               ///< of each `*`, in order
  std::map<std::string, std::int64_t> numbers;  ///< of each `{word}`
  std::string rest;                             ///< behind the pattern: empty, or from a dot on
};

/// Names of parameters as step files write them: text; `*`, any text that is not empty, the
/// shortest that fits, at most two of them; `{word}`, a whole number. A value; all members are
/// Local.
class NamePattern {
 public:
  /// Errors: usage.
  explicit NamePattern(std::string_view text);

  /// The whole name, or its beginning up to a dot.
  std::optional<Match> match(std::string_view name) const;
  /// The whole name alone.
  std::optional<Match> match_whole(std::string_view name) const;

 protected:
  struct Part {
    enum class Kind { text, any, number } kind = Kind::text;
    std::string text;  ///< the text, or what is between the braces
  };
  friend class NameTemplate;
  static std::vector<Part> parts_of(std::string_view text);

 private:
  bool match_from(std::size_t part, std::string_view name, std::size_t at, bool whole,
                  Match& match) const;
  std::vector<Part> parts_;
};

/// What a matched name becomes: `*` is what the pattern's `*` of that place stood for, `{...}` an
/// arithmetic expression: whole numbers, words, + - * and parentheses; / divides without a rest,
/// // rounds down, % is the rest. A value; all members are Local.
class NameTemplate {
 public:
  /// Errors: usage (no expression; more `*`, or other words, than `pattern` and `values` have).
  NameTemplate(std::string_view text, const NamePattern& pattern,
               const std::map<std::string, std::int64_t>& values);
  /// Without what lies behind the pattern. Errors: mismatch (a division that has a rest, a result
  /// below 0 or too large).
  std::string fill(const Match& match) const;
  /// Whether the pattern and the template can change places: no expressions, equal parts.
  bool is_invertible() const { return invertible_; }

 private:
  std::vector<NamePattern::Part> parts_;
  std::map<std::string, std::int64_t> values_;
  bool invertible_ = true;
};

}  // namespace cairn::detail::migrations
