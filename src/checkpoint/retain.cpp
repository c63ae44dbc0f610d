// Which checkpoints of a run stay. Judged by commit records: a run that was taken back to an older
// step must not lose its new checkpoints to those of higher steps.
#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "base/throw.hpp"
#include "checkpoint/references.hpp"
#include "checkpoint/steps.hpp"
#include "formats/hdf5/container.hpp"
#include "manifest/names.hpp"
#include "os/file.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;

struct Kept {
  std::string committed_at;
  std::uint64_t step = 0;
  fs::path path;
};

void warn(const fs::path& path, const char* why) {
  fmt::print(stderr, "cairn: warning: the old checkpoint '{}' stays: {}\n", path.string(), why);
}

/// The committed checkpoints of the directory, the most recently committed first.
std::vector<Kept> committed_in(const fs::path& dir) {
  std::vector<Kept> found;
  for (const auto& entry : fs::directory_iterator(dir)) {
    const auto step = names::parse_checkpoint_file(entry.path().filename().string());
    if (!step || !entry.is_regular_file() || entry.is_symlink()) continue;
    try {
      if (auto commit = commit_of(entry.path())) {
        found.push_back({std::move(commit->committed_at), *step, entry.path()});
      }
    } catch (const Error& error) {
      warn(entry.path(), error.what());
    }
  }
  std::sort(found.begin(), found.end(), [](const Kept& a, const Kept& b) {
    return std::tie(a.committed_at, a.step) > std::tie(b.committed_at, b.step);
  });
  return found;
}

}  // namespace

void retain(const SaveRequest& request) noexcept {
  const std::uint64_t keep = request.options.keep_last;
  if (keep == 0 || !names::parse_checkpoint_file(request.target.filename().string())) return;
  try {
    const fs::path dir = request.target.parent_path();
    const auto found = committed_in(dir.empty() ? fs::path(".") : dir);
    // What newest_checkpoint finds, and so what a resumed run begins with.
    const auto newest = std::max_element(
        found.begin(), found.end(), [](const Kept& a, const Kept& b) { return a.step < b.step; });
    std::vector<fs::path> old;
    std::uint64_t kept = 1;  // the new one, whatever the clock says
    for (auto it = found.begin(); it != found.end(); ++it) {
      if (it->path.filename() == request.target.filename()) continue;
      if (kept < keep) {
        ++kept;
        continue;
      }
      if (it != newest) old.push_back(it->path);
    }
    for (const fs::path& path :
         without_needed(request.target.parent_path(), std::move(old), !request.in_background)) {
      try {
        remove_file(path);
      } catch (const Error& error) {
        warn(path, error.what());
      }
    }
  } catch (const std::exception& error) {
    warn(request.target.parent_path(), error.what());
  }
}

}  // namespace cairn::detail
