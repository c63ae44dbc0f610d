#include "base/near_names.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/edit_distance.hpp"

namespace cairn::detail {

std::string list_near(std::string_view wanted, const std::vector<std::string_view>& names) {
  constexpr std::size_t kShown = 3;
  constexpr std::size_t kMostNames = 20'000;
  std::vector<std::pair<std::size_t, std::string_view>> ranked;
  for (std::size_t i = 0; i < std::min(names.size(), kMostNames); ++i) {
    ranked.emplace_back(edit_distance(wanted, names[i]), names[i]);
  }
  const std::size_t shown = std::min(kShown, ranked.size());
  std::partial_sort(ranked.begin(), ranked.begin() + static_cast<std::ptrdiff_t>(shown),
                    ranked.end());
  std::string text;
  for (std::size_t i = 0; i < shown; ++i) {
    text += fmt::format("{}'{}'", i == 0 ? "" : ", ", ranked[i].second);
  }
  return text;
}

}  // namespace cairn::detail
