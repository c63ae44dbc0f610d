#pragma once

#include <filesystem>

#include "cairn/manifest.hpp"
#include "formats/table_bytes.hpp"

namespace cairn::detail {

/// Reads a directory of PyTorch's distributed checkpoints: `.metadata`, and the data files that it
/// names, whatever others lie beside them. The parts of a tensor stay where they are. Tensors have
/// their flattened names; values that are no tensors are told in documents, as those of a file of
/// PyTorch's are (docs/formats.md), and so is what is in `meta.pt` and `common.pt` beside the data
/// files. `table_bytes` counts the files and their tensors. Local. Errors: not_found, io;
/// corrupt (also a save that never committed), unsupported, unsafe.
Manifest read_dcp(const std::filesystem::path& directory, TableBytes& table_bytes);

}  // namespace cairn::detail
