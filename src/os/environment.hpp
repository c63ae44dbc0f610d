#pragma once

#include <string>

namespace cairn::detail {

/// The value of an environment variable; empty where it is not set. Local.
std::string environment(const std::string& name);

}  // namespace cairn::detail
