#pragma once

#include <string_view>

namespace cairn::detail {

/// Whether what has this name (a variable, a key of an option) is likely to be a secret. Local.
bool sounds_secret(std::string_view name);

/// Whether `text` holds the value of an environment variable whose name sounds so. Local.
bool holds_secret(std::string_view text);

}  // namespace cairn::detail
