#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace cairn::detail {

/// An ECMAScript expression from outside: at most 512 characters, the product of its repeat counts
/// at most 100, no back-references. It is matched in a time that grows with the length of the text.
/// A value; all members are Local.
class BoundedRegex {
 public:
  /// `what` is what errors call it. Errors: usage, when it is none or beyond the bounds.
  BoundedRegex(const std::string& pattern, std::string_view what);
  ~BoundedRegex();
  BoundedRegex(BoundedRegex&&) noexcept;
  BoundedRegex& operator=(BoundedRegex&&) noexcept;

  bool found_in(std::string_view text) const;
  /// `text` with every match replaced; $1, ... in `by` are its groups, $& the match.
  std::string replaced_in(const std::string& text, const std::string& by) const;

 private:
  struct Compiled;
  std::unique_ptr<const Compiled> compiled_;
};

}  // namespace cairn::detail
