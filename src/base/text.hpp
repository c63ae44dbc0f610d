#pragma once

#include <string>
#include <string_view>

namespace cairn::detail {

/// Without the blanks, tabs and line ends at both ends. Local.
std::string_view trimmed(std::string_view text);

/// In lower case, as far as it is ASCII. Local.
std::string lower_case(std::string_view text);

/// What others sent, as a line of a message may show it: blanks instead of control characters, and
/// not all of a long text. Local.
std::string printable(std::string_view text);

}  // namespace cairn::detail
