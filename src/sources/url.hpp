#pragma once

#include <string>
#include <string_view>

namespace cairn::detail {

/// A text as it may be shown: of a URL, user, password and everything behind "?" are taken away,
/// because they may be secrets. Other texts stay. Local.
std::string masked_url(std::string_view text);

/// Percent-encodes everything but letters, digits and "-._~"; "/" stays where `keep_slashes`.
std::string percent_encoded(std::string_view text, bool keep_slashes);

/// The last part of a URL's path that is a usable file name; otherwise "file".
std::string file_name_of(std::string_view url);

/// Whether `name` is a plain file name: no "/", not "." or "..", no control characters.
bool is_plain_name(std::string_view name);

}  // namespace cairn::detail
