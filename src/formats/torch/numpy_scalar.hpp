#pragma once

#include <nlohmann/json.hpp>
#include <optional>

#include "formats/pickle/graph.hpp"

namespace cairn::detail::torch {

/// A NumPy scalar as a leaf: {type, value}, of floats also bits (of the equal f64). Nothing for
/// what is none, or has a type that is told by nobody. Local. Errors: corrupt.
std::optional<nlohmann::ordered_json> numpy_scalar_of(const pickle::Graph& graph, pickle::Ref ref);

}  // namespace cairn::detail::torch
