#pragma once

#include <cstdint>

#include "formats/pickle/graph.hpp"

namespace cairn::detail::torch {

/// What it takes to turn a value into JSON.
struct Weight {
  std::uint64_t values = 0;  ///< looked at
  std::uint64_t bytes = 0;   ///< of their texts, and one for each value
};

/// The weight of what scalar_of, leaf_of, opaque_of and numpy_array_of look at in a value, found
/// without making anything; it is not counted on far beyond `most` bytes. Local.
Weight weight_of(const pickle::Graph& graph, pickle::Ref ref, std::uint64_t most);

}  // namespace cairn::detail::torch
