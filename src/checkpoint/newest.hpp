#pragma once

#include <filesystem>
#include <optional>

namespace cairn::detail {

/// The committed checkpoint of the highest step, whatever marks say. Local. Errors: io,
/// unsupported.
std::optional<std::filesystem::path> newest_committed(const std::filesystem::path& run_dir);

/// The one to resume from: passes over what is marked as bad, or takes tensors that are damaged
/// from what is, and marks what has a checkpoint's name but is none, each with a warning on stderr.
/// Nothing where no file is committed. Local.
/// Errors: corrupt (every committed one is marked as bad), io, unsupported.
std::optional<std::filesystem::path> newest_usable(const std::filesystem::path& run_dir);

}  // namespace cairn::detail
