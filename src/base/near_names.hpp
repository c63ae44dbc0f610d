#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::detail {

/// The names nearest to `wanted`, the nearest first, for an error's text: "'a', 'b', 'c'". Empty
/// where there are no names. Compares at most 20,000 of them.
std::string list_near(std::string_view wanted, const std::vector<std::string_view>& names);

}  // namespace cairn::detail
