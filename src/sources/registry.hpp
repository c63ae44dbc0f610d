#pragma once

#include <string>
#include <vector>

#include "cairn/source.hpp"

namespace cairn::detail {

/// The types that the program registered, in order. Thread-safe. Local.
std::vector<std::string> registered_source_types();
/// Errors: unsupported (no such type). Thread-safe. Local.
SourceFunction registered_source(const std::string& type);

}  // namespace cairn::detail
