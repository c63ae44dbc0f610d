#pragma once

#include <filesystem>
#include <string>

#include "cairn/comm.hpp"
#include "cairn/export.hpp"
#include "cairn/source.hpp"

namespace cairn::detail {

/// The path with a leading "~" or "~/" replaced by $HOME. Errors: usage ("~user", no $HOME). Local.
CAIRN_EXPORT std::filesystem::path expand_home(const std::filesystem::path& path);

/// Whether a name is a plain path that stays inside the directory that it is relative to. Local.
bool is_inside(const std::string& name);

/// The checkpoint that a source means: the path itself, which may be the directory of a checkpoint
/// of another format, or the newest committed checkpoint of a run directory; of a run without one,
/// its last.ckpt. `fallback` is SourceSettings::fallback. A path that does not exist is an error
/// that names its nearest siblings. Local. Errors: not_found, usage, unsupported (neither file nor
/// directory; newer format), io.
std::filesystem::path find_local(const LocalSource& source, bool fallback);
std::filesystem::path find_run(const RunSource& source, bool fallback);

/// Whether `source` names a run's directory, of which `path` is a step's checkpoint. Local.
bool is_newest_of_run(const Source& source, const std::filesystem::path& path);

/// The checkpoint that `path` means, as find_local without fallback. Rank 0 looks, and its path
/// counts; the answer is the same on all ranks. Collective. Errors: not_found, usage, unsupported
/// (neither file nor directory; newer format), io.
CAIRN_EXPORT std::filesystem::path resolve_local(const Comm& comm,
                                                 const std::filesystem::path& path);

}  // namespace cairn::detail
