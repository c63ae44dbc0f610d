#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

#include "cairn/manifest.hpp"
#include "formats/pickle/graph.hpp"

namespace cairn::detail::torch {

using Json = nlohmann::ordered_json;

/// A value without parts: {type, value}, and the bits of a float. Integers beyond 2^53 and floats
/// that are no numbers are texts, bytes are hexadecimal. Nothing for any other value. Local.
/// Errors: corrupt (a broken NumPy scalar).
std::optional<Json> scalar_of(const pickle::Graph& graph, pickle::Ref ref);
/// Sets, sizes, dtypes, devices, paths of the file system, empty containers, and lists of numbers
/// and names as one leaf: {type, value}. Nothing for any other value. Local. Errors: as scalar_of.
std::optional<Json> leaf_of(const pickle::Graph& graph, pickle::Ref ref);
/// Whether a value has no parts that could be tensors, told without making anything. Local.
bool is_closed(const pickle::Graph& graph, pickle::Ref ref);
/// What can be told about an object of a class that cairn does not know: {class, state,
/// enum_name, enum_value, args}, as far as there is such. Local.
Json opaque_of(const pickle::Graph& graph, pickle::Ref ref);

/// The dict that is, or is in, the state of an object; kNoRef where there is none. Local.
pickle::Ref attributes_of(const pickle::Graph& graph, pickle::Ref ref);

/// Whether the attributes of an object are listed as values at paths of their own: those of
/// pydantic's models, and of namespaces. Local.
bool has_open_state(const pickle::Graph& graph, pickle::Ref ref);

/// The value in the containers and nodes of OmegaConf, whose '_parent' is not followed; any other
/// value as it is. Local.
pickle::Ref plain_of(const pickle::Graph& graph, pickle::Ref ref);

Json json_of(std::span<const PathKey> path);
/// The keys, joined with '/'; '\' and '/' in keys have a '\' before them. Local.
std::string name_of(std::span<const PathKey> path);

}  // namespace cairn::detail::torch
