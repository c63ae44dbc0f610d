#pragma once

#include <filesystem>
#include <string>

#include "cairn/manifest.hpp"
#include "formats/table_bytes.hpp"

namespace cairn::detail::dcp {

/// Whether a file's name is that of a rank's part of a distributed checkpoint in safetensors:
/// `shard-00001-model-00001-of-00002.safetensors`. Local.
bool is_sharded_safetensors(const std::string& name);
/// Whether a directory holds such files, and no `.metadata`. Local.
bool has_sharded_safetensors(const std::filesystem::path& directory);
/// Reads such a directory: each file's `__metadata__` says under `DCP_SHARDING_INFO` where in its
/// tensor each of its parts lies. `table_bytes` counts the files and their tensors. Local. Errors:
/// corrupt (parts do not tile their tensor, ...), unsupported, unsafe, io.
Manifest read_sharded_safetensors(const std::filesystem::path& directory, TableBytes& table_bytes);

}  // namespace cairn::detail::dcp
