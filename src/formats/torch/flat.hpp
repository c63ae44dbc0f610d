#pragma once

#include <nlohmann/json.hpp>

#include "formats/pickle/graph.hpp"

namespace cairn::detail::torch {

// Values told without their parts' paths. A JSON value says all about None, booleans, texts, small
// integers and finite floats, and less about other values: lists of these say more beside it.

/// The value alone. Local. Errors: as scalar_of().
nlohmann::ordered_json value_of(const pickle::Graph& graph, pickle::Ref ref);
/// The values of a tuple's, list's or set's elements, in their order. Local. Errors: the same.
nlohmann::ordered_json values_of(const pickle::Graph& graph, pickle::Ref ref);
/// A list, tuple, set or frozenset as one leaf: {type, value, parts}. `parts` are those elements
/// that the list of values does not say all about, as [position in it, leaf]; missing where there
/// are none. Sets are in the order in which Python sorts them by repr(). Local. Errors: the same.
nlohmann::ordered_json collection_of(const pickle::Graph& graph, pickle::Ref ref);
/// Whether a list or tuple is long and says nothing by its positions: integers and names, or
/// thousands of numbers. Local.
bool is_flat(const pickle::Graph& graph, pickle::Ref ref);

}  // namespace cairn::detail::torch
