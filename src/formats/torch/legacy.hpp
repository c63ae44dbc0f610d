#pragma once

#include "formats/pickle/graph.hpp"
#include "formats/torch/storages.hpp"
#include "os/file.hpp"

namespace cairn::detail::torch {

/// A file from before PyTorch 1.6: a pickled object and, behind it, the bytes of its storages.
struct LegacyFile {
  pickle::Graph graph;
  Storages storages;  ///< with offsets
};

/// Whether `file` starts as such files do. Local. Errors: io.
bool is_legacy(const File& file);
/// Reads all but the storages' bytes. Local. Errors: corrupt, unsupported, unsafe, io.
LegacyFile read_legacy(const File& file);

}  // namespace cairn::detail::torch
