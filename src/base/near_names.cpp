#include "base/near_names.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace cairn::detail {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
    }
  }
  return row[b.size()];
}

std::string list_near(std::string_view wanted, const std::vector<std::string_view>& names) {
  constexpr std::size_t kShown = 3;
  constexpr std::size_t kMostNames = 20'000;
  constexpr std::size_t kMostCharacters = 256;  // of a name: the work grows with its square
  std::vector<std::pair<std::size_t, std::string_view>> ranked;
  for (std::size_t i = 0; i < std::min(names.size(), kMostNames); ++i) {
    ranked.emplace_back(
        edit_distance(wanted.substr(0, kMostCharacters), names[i].substr(0, kMostCharacters)),
        names[i]);
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
