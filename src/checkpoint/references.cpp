#include "checkpoint/references.hpp"

#include <system_error>

#include "base/throw.hpp"
#include "checkpoint/marks.hpp"
#include "formats/hdf5/container.hpp"
#include "os/file.hpp"

namespace cairn::detail {

namespace fs = std::filesystem;

std::map<std::string, std::vector<std::string>> references_in(const fs::path& directory,
                                                              bool may_call_hdf5) {
  std::map<std::string, std::vector<std::string>> found;
  for (const auto& entry : fs::directory_iterator(directory.empty() ? "." : directory)) {
    std::string name = entry.path().filename().string();
    // Hidden files are saves that did not finish.
    if (name.starts_with('.') || !is_own_file(entry)) continue;
    try {
      auto names = referenced_files(entry.path(), may_call_hdf5);
      if (!names.empty()) found[std::move(name)] = std::move(names);
    } catch (const Error& error) {
      if (error.code() != Errc::not_found) throw;  // another process removed it
    }
  }
  return found;
}

void check_replaceable(const fs::path& target, bool may_call_hdf5) {
  std::error_code error;
  const bool exists = fs::exists(target, error);
  if (error) fail_system("examine", target, error.value());
  if (!exists) return;
  const std::string name = target.filename().string();
  for (const auto& [other, needs] : references_in(target.parent_path(), may_call_hdf5)) {
    if (bad_mark_of(target.parent_path() / other)) continue;
    for (const std::string& needed : needs) {
      if (needed != name) continue;
      fail(Errc::usage,
           "'{}' can't be replaced: '{}' takes tensors from it (save.delta); remove that one, or "
           "make it whole with 'cairn flatten', or save under another name",
           target.string(), other);
    }
  }
}

}  // namespace cairn::detail
