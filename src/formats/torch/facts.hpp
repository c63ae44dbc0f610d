#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "cairn/manifest.hpp"
#include "formats/pickle/graph.hpp"

namespace cairn::detail::torch {

/// What the parts of a training checkpoint are, by the keys that Lightning and everybody's own
/// training loops use: the documents `roles`, `optimizers` and `training` (docs/formats.md), as far
/// as there is something to say. Local. Errors: corrupt (a broken NumPy scalar).
std::map<std::string, std::string> facts_of(const pickle::Graph& graph, const TensorTable& tensors);

/// A value as JSON, as the document `training` has it: tensors and arrays by their names, as far as
/// there is room. Local.
nlohmann::ordered_json plain_json(const pickle::Graph& graph, pickle::Ref ref);

}  // namespace cairn::detail::torch
