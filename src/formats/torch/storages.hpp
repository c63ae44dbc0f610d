#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cairn/dtype.hpp"
#include "formats/pickle/graph.hpp"

namespace cairn::detail::torch {

/// A run of bytes that tensors are views of.
struct Storage {
  std::string_view key;  ///< its name in the file; in the graph
  DType dtype = DType::u8;
  bool untyped = false;      ///< counted in bytes, whatever its tensors are
  std::uint64_t bytes = 0;   ///< as the pickle says
  std::uint64_t offset = 0;  ///< in the file
};

/// A storage as one place in the pickle names it. Files from before 2017 know storages that are
/// parts of others.
struct StorageView {
  std::size_t storage = 0;  ///< position in Storages::all
  std::uint64_t first = 0;  ///< bytes from its start
  std::uint64_t bytes = 0;
};

/// All storages of a pickle, each once, in the order of the stream. Lifetime: that of the graph.
struct Storages {
  std::vector<Storage> all;
  std::unordered_map<pickle::Ref, StorageView> views;  ///< by the persistent value
};

/// Reads what a pickle says about its storages; their offsets stay 0. Local. Errors: corrupt
/// (nonsense, or one key with two meanings); unsafe (a key that is a path, or more places than
/// memory); unsupported (a type
/// that cairn has not).
Storages storages_of(const pickle::Graph& graph);

/// The dtype of "torch.<name>", or nothing where cairn has none like it. Local.
std::optional<DType> dtype_of_torch(std::string_view name);
/// The inverse: "float32". Local.
std::string_view torch_name(DType dtype);
/// "FloatStorage"; empty where PyTorch has no storage of that type, but untyped ones. Local.
std::string_view storage_name(DType dtype);

}  // namespace cairn::detail::torch
