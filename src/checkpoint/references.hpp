#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace cairn::detail {

/// Which files of a directory others of it need (SaveOptions::delta), judged by the files
/// themselves.

/// The names of the files that `file` takes tensors from; none where another process removed it.
/// Local. Errors: io and unsupported, where the file can't be judged (among them containers that
/// another program rewrote, without `may_call_hdf5`): then none should go.
std::vector<std::string> references_of(const std::filesystem::path& file, bool may_call_hdf5);

/// Checks that nothing in its directory that can be loaded needs `target`, if that exists. Local.
/// Errors: usage, naming a container that does; io and unsupported, where a file can't be judged.
void check_replaceable(const std::filesystem::path& target, bool may_call_hdf5);

}  // namespace cairn::detail
