#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/pickle/graph.hpp"
#include "formats/table_bytes.hpp"
#include "formats/torch/storages.hpp"

namespace cairn::detail::torch {

/// What a pickled object holds, found by walking from its root through all containers.
struct Contents {
  std::vector<TensorEntry> tensors;  ///< in file 0, in the order of the pickle
  /// Names of tensors that are views of one storage, as far as there are several.
  std::vector<std::vector<std::string>> aliases;
  // JSON lists, see docs/formats.md.
  std::string objects;     ///< values without parts
  std::string opaque;      ///< objects of classes that cairn does not know
  std::string arrays;      ///< NumPy arrays
  std::string containers;  ///< dicts with integers as keys, and tuples
  std::vector<std::string> warnings;
};

/// What walks may look at until it is too much: one, or all those of a checkpoint that is many
/// pickles.
struct WalkBudget {
  std::uint64_t work = 1 << 30;   ///< values and bytes of texts, at every reference
  std::size_t steps = 4'000'000;  ///< places: a few references can make 2^64 paths
};

/// Where a walk starts.
struct WalkStart {
  std::vector<PathKey> path;              ///< of the object in the checkpoint: all paths begin so
  std::span<const std::string_view> but;  ///< keys of the object that are not followed
};

/// Walks a pickled object. An object that is no container stays closed: tensors in it are not
/// found, except those of modules (parameters and buffers by their names). Cycles are not followed.
/// The storages' offsets must be known; `table_bytes` counts the tensors. Local. Errors: corrupt,
/// unsupported (a tensor that cairn cannot read); unsafe (too many or too deep paths, a name with
/// NUL).
Contents walk(const pickle::Graph& graph, const Storages& storages, TableBytes& table_bytes,
              WalkBudget& budget, WalkStart start = {});

}  // namespace cairn::detail::torch
