#pragma once

#include <filesystem>

#include "cairn/manifest.hpp"
#include "formats/table_bytes.hpp"

namespace cairn::detail {

/// Reads the table of a checkpoint of DeepSpeed's ZeRO (stages 1 to 3): a directory with the file
/// `latest`, or the tag's directory that it names. The partitions of the ranks are put together by
/// extents; nothing is executed or copied. docs/formats.md, "DeepSpeed", has the tensors' names and
/// documents. `table_bytes` counts the files and their tensors. Local. Errors: not_found, io;
/// corrupt (ranks are missing, counts that do not fit); unsupported (model parallelism, experts),
/// with advice; unsafe.
Manifest read_deepspeed(const std::filesystem::path& directory, TableBytes& table_bytes);

}  // namespace cairn::detail
