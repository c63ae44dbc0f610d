#pragma once

#include <cstddef>
#include <string_view>

namespace cairn::detail {

/// How many letters must be put in, taken out or replaced to make one text of the other. Looks at
/// the first 256 bytes of each only: it is for names, and its time is quadratic. Local.
std::size_t edit_distance(std::string_view a, std::string_view b);

}  // namespace cairn::detail
