#pragma once

#include <filesystem>

#include "cairn/manifest.hpp"
#include "formats/table_bytes.hpp"

namespace cairn::detail {

/// Reads the table of a file that torch.save wrote, of the zip format or the one before it, with
/// extents into the file itself. Nothing in the file is executed. The manifest's documents are
/// listed in docs/formats.md, "PyTorch"; its checksums are the zip archive's.
/// `table_bytes` counts the file and its tensors. Local. Errors:
/// not_found, io; corrupt; unsupported (TorchScript, sparse tensors, ...), with advice; unsafe (a
/// name that runs code, a path that leaves the archive, limits passed).
Manifest read_torch(const std::filesystem::path& path, TableBytes& table_bytes);

}  // namespace cairn::detail
