#pragma once

#include <string>
#include <vector>

#include "cairn/export.hpp"

namespace cairn::detail {

/// The types of modifiers that the program registered, in order. Thread-safe. Local.
std::vector<std::string> registered_modifier_types();
/// Thread-safe. Local. Errors: usage (no name, or it exists).
CAIRN_EXPORT void add_modifier_type(const std::string& type);

}  // namespace cairn::detail
