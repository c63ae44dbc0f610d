#pragma once

#include <map>
#include <string>

#include "cairn/manifest.hpp"
#include "formats/pickle/graph.hpp"

namespace cairn::detail::torch {

/// What the parts of a training checkpoint are, by the keys that Lightning and everybody's own
/// training loops use: the documents `roles`, `optimizers` and `training` (docs/formats.md), as far
/// as there is something to say. Local. Errors: corrupt (a broken NumPy scalar).
std::map<std::string, std::string> facts_of(const pickle::Graph& graph, const TensorTable& tensors);

}  // namespace cairn::detail::torch
