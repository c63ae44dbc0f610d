#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/throw.hpp"

namespace cairn::detail {

/// A node of a configuration, with its line for errors.
struct Value {
  enum class Type { null, scalar, list, mapping };

  Type type = Type::null;
  std::string text;  ///< of a scalar
  std::vector<Value> items;
  std::vector<std::pair<std::string, Value>> entries;  ///< in their order; keys are distinct
  int line = 0;
  std::size_t key_at = 0;  ///< of an entry: the offset of its key in the text (behind a BOM)
  bool in_flow = false;    ///< of an entry: its mapping is written with braces
  bool shadows = false;    ///< of an entry: "<<" brings the same key
  bool secret = false;     ///< from an environment variable that sounds like one
  bool quoted = false;     ///< written as a text, so that it is no number and no flag

  Value* find(std::string_view key);
  const Value* find(std::string_view key) const;
};

/// Where a value stands, for errors: "file:line: 'a.b'".
struct Place {
  std::string_view origin;  ///< must outlive it
  std::string key;          ///< dotted path; empty: the document

  Place at(std::string_view name) const;
  Place at(std::size_t index) const;
  [[noreturn]] void refuse(const Value& value, const std::string& why,
                           Errc code = Errc::usage) const;
};

/// The most nodes of a document, aliases and interpolations expanded.
inline constexpr std::size_t kMostNodes = 100'000;
/// The most bytes of all its keys and texts, expanded as well.
inline constexpr std::size_t kMostTextBytes = 64 << 20;
/// The deepest nesting, of nodes or of references to others.
inline constexpr int kMostLevels = 64;

/// Parses YAML. Aliases are expanded and `<<` is merged. Errors: usage (no YAML, a key given
/// twice), unsafe (more than kMostNodes or kMostTextBytes).
Value parse_yaml(const std::string& text, const std::string& origin);

}  // namespace cairn::detail
