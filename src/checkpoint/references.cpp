#include "checkpoint/references.hpp"

#include <map>
#include <set>
#include <string>
#include <system_error>

#include "base/throw.hpp"
#include "formats/hdf5/container.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;

/// What each file of the directory that refers to others refers to, by names.
std::map<std::string, std::vector<std::string>> references_in(const fs::path& directory,
                                                              bool may_call_hdf5) {
  std::map<std::string, std::vector<std::string>> found;
  for (const auto& entry : fs::directory_iterator(directory.empty() ? "." : directory)) {
    std::error_code ignored;
    std::string name = entry.path().filename().string();
    // Hidden files are saves that did not finish.
    if (name.starts_with('.') || !entry.is_regular_file(ignored) || entry.is_symlink(ignored)) {
      continue;
    }
    try {
      auto names = referenced_files(entry.path(), may_call_hdf5);
      if (!names.empty()) found[std::move(name)] = std::move(names);
    } catch (const Error& error) {
      if (error.code() != Errc::not_found) throw;  // another process removed it
    }
  }
  return found;
}

}  // namespace

std::vector<fs::path> without_needed(const fs::path& directory, std::vector<fs::path> files,
                                     bool may_call_hdf5) {
  if (files.empty()) return files;
  const auto references = references_in(directory, may_call_hdf5);
  std::set<std::string> doomed;
  for (const fs::path& file : files) doomed.insert(file.filename().string());
  std::vector<std::string> staying;
  for (const auto& [name, needs] : references) {
    if (!doomed.contains(name)) staying.push_back(name);
  }
  while (!staying.empty()) {
    const std::string name = std::move(staying.back());
    staying.pop_back();
    const auto needs = references.find(name);
    if (needs == references.end()) continue;
    for (const std::string& needed : needs->second) {
      if (doomed.erase(needed) != 0) staying.push_back(needed);  // and what that one needs
    }
  }
  std::erase_if(files,
                [&](const fs::path& file) { return !doomed.contains(file.filename().string()); });
  return files;
}

void check_replaceable(const fs::path& target) {
  std::error_code ignored;
  if (!fs::exists(target, ignored)) return;
  const std::string name = target.filename().string();
  for (const auto& [other, needs] : references_in(target.parent_path(), /*may_call_hdf5=*/true)) {
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
