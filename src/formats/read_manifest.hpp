#pragma once

#include <filesystem>

#include "cairn/manifest.hpp"
#include "formats/detect.hpp"

namespace cairn::detail {

/// The table of the checkpoint `path`, a file or a directory of any format that cairn reads, with
/// everything checked but the tensors' bytes. Local. Errors: not_found; corrupt, unsupported,
/// unsafe, each naming the file; io; usage (a directory that holds several).
Manifest read_manifest(const std::filesystem::path& path);
/// The same for what find_format found.
Manifest read_manifest(const FoundFormat& found);

}  // namespace cairn::detail
