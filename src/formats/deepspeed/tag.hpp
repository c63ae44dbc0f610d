#pragma once

#include <filesystem>

#include "cairn/manifest.hpp"

namespace cairn::detail::deepspeed {

/// Whether the file `latest` or `latest_universal` in a directory could name a tag: one short line.
/// Other programs use such names, too. Local.
bool names_tag(const std::filesystem::path& directory);
/// The directory of the tag that `latest`, else `latest_universal` names, which is added to
/// `manifest`; or the given directory where there is neither. Local. Errors: corrupt (no such
/// tag), unsafe (it leaves the directory), io.
std::filesystem::path tagged(const std::filesystem::path& directory, Manifest& manifest);

}  // namespace cairn::detail::deepspeed
