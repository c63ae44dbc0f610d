#pragma once

#include <string>
#include <string_view>

namespace cairn::detail {

/// A text as it may be shown: of a URL, user, password and everything behind "?" are taken away,
/// because they may be secrets. Other texts stay. Local.
std::string masked_url(std::string_view text);

}  // namespace cairn::detail
