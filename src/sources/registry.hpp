#pragma once

#include <string>
#include <vector>

#include "cairn/source.hpp"

namespace cairn::detail {

/// The types that the program registered, in order. Thread-safe. Local.
std::vector<std::string> registered_source_types();

}  // namespace cairn::detail
