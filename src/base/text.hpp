#pragma once

#include <string>
#include <string_view>

namespace cairn::detail {

/// Without the blanks, tabs and line ends at both ends. Local.
std::string_view trimmed(std::string_view text);

/// In lower case, as far as it is ASCII. Local.
std::string lower_case(std::string_view text);

/// Whether a path that others wrote is none below a directory: it is empty, absolute, goes up by
/// "..", or has a NUL, where other programs would cut it off. Local.
bool leaves_directory(std::string_view path);

/// What others sent, as a line of a message may show it: blanks instead of control characters, and
/// not all of a long text. Local.
std::string printable(std::string_view text);

}  // namespace cairn::detail
