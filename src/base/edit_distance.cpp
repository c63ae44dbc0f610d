#include "base/edit_distance.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

namespace cairn::detail {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  constexpr std::size_t kMostBytes = 256;
  a = a.substr(0, kMostBytes);
  b = b.substr(0, kMostBytes);
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

}  // namespace cairn::detail
