#include "checkpoint/references.hpp"

#include <algorithm>
#include <system_error>

#include "base/throw.hpp"
#include "checkpoint/marks.hpp"
#include "formats/hdf5/container.hpp"
#include "os/file.hpp"

namespace cairn::detail {

namespace fs = std::filesystem;

std::vector<std::string> references_of(const fs::path& file, bool may_call_hdf5) {
  try {
    return referenced_files(file, may_call_hdf5);
  } catch (const Error& error) {
    if (error.code() != Errc::not_found) throw;
    return {};
  }
}

void check_replaceable(const fs::path& target, bool may_call_hdf5) {
  std::error_code error;
  const bool exists = fs::exists(target, error);
  if (error) fail_system("examine", target, error.value());
  if (!exists) return;
  const std::string name = target.filename().string();
  const fs::path directory = target.parent_path();
  for (const fs::directory_entry& entry : entries_of(directory.empty() ? "." : directory)) {
    const std::string other = entry.path().filename().string();
    // Hidden files are saves that did not finish.
    if (other.starts_with('.') || !is_own_file(entry)) continue;
    const auto needs = references_of(entry.path(), may_call_hdf5);
    if (std::find(needs.begin(), needs.end(), name) == needs.end()) continue;
    if (bad_mark_of(entry.path())) continue;
    fail(Errc::usage,
         "'{}' can't be replaced: '{}' takes tensors from it (save.delta); remove that one, or "
         "make it whole with 'cairn flatten', or save under another name",
         target.string(), other);
  }
}

}  // namespace cairn::detail
