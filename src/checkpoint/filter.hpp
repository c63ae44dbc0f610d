#pragma once

#include <optional>
#include <string_view>
#include <unordered_set>

#include "base/bounded_regex.hpp"
#include "base/digest.hpp"
#include "cairn/load.hpp"
#include "cairn/manifest.hpp"

namespace cairn::detail {

/// A TensorFilter made ready for many names. All members are Local.
class CompiledFilter {
 public:
  /// `filter` must outlive this. Errors: usage, when the pattern is none or is beyond the bounds of
  /// TensorFilter::regex.
  explicit CompiledFilter(const TensorFilter& filter);
  CompiledFilter(const CompiledFilter&) = delete;
  CompiledFilter& operator=(const CompiledFilter&) = delete;

  bool matches(std::string_view name) const;

  /// Every name, every prefix and the pattern must fit a tensor of the checkpoint: a typing error
  /// must not become a tensor that silently stays as it was. Errors: not_found, with near names.
  void require_in(const Manifest& manifest) const;

 private:
  const TensorFilter& filter_;
  std::unordered_set<std::string_view> names_;
  std::optional<BoundedRegex> pattern_;
};

/// What is equal for equal filters.
void update(Digester& digester, const TensorFilter& filter);

}  // namespace cairn::detail
