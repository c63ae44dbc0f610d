#include "checkpoint/filter.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "base/near_names.hpp"
#include "base/throw.hpp"

namespace cairn::detail {

CompiledFilter::CompiledFilter(const TensorFilter& filter)
    : filter_(filter), names_(filter.names.begin(), filter.names.end()) {
  if (!filter.regex.empty()) pattern_.emplace(filter.regex, "the regex of the filter");
}

bool CompiledFilter::matches(std::string_view name) const {
  if (filter_.is_empty()) return true;
  const auto starts = [&](const std::string& prefix) { return name.starts_with(prefix); };
  return names_.contains(name) ||
         std::any_of(filter_.prefixes.begin(), filter_.prefixes.end(), starts) ||
         (pattern_ && pattern_->found_in(name));
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
    require("regex", filter_.regex,
            [&] { return any([&](std::string_view name) { return pattern_->found_in(name); }); });
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
