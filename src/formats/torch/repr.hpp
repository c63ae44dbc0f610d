#pragma once

#include <string>

#include "formats/pickle/graph.hpp"

namespace cairn::detail::torch {

/// What repr() of Python gives of a value without parts, a class, or a tuple of such; "..." of
/// others, and where it would be long. Local.
std::string repr_of(const pickle::Graph& graph, pickle::Ref ref);

}  // namespace cairn::detail::torch
