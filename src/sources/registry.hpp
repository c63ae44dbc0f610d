#pragma once

#include <string>
#include <vector>

#include "cairn/source.hpp"

namespace cairn::detail {

/// The types that the program registered, in order. Thread-safe. Local.
std::vector<std::string> registered_source_types();

/// The function of a registered type; empty for any other. Thread-safe. Local.
SourceFunction source_function(const std::string& type);

}  // namespace cairn::detail
