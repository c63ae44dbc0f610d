#pragma once

#include <filesystem>
#include <vector>

namespace cairn::detail {

/// Which files of a directory others of it need (SaveOptions::delta), judged by the files
/// themselves.

/// Of `files`, all in `directory`, those that nothing needs which stays there when they go. Local.
/// Errors: io and unsupported, where a file can't be judged (among them containers that another
/// program rewrote, without `may_call_hdf5`): then none should go.
std::vector<std::filesystem::path> without_needed(const std::filesystem::path& directory,
                                                  std::vector<std::filesystem::path> files,
                                                  bool may_call_hdf5);

/// Checks that nothing in its directory needs `target`, if that exists. Local. Errors: usage,
/// naming a container that does; io and unsupported, where a file can't be judged.
void check_replaceable(const std::filesystem::path& target);

}  // namespace cairn::detail
