// Which checkpoint of a run is the newest. Judged by commit records; marks say what can't be loaded
// although it was committed.
#include "checkpoint/newest.hpp"

#include <algorithm>
#include <cstdint>
#include <system_error>
#include <vector>

#include "base/throw.hpp"
#include "cairn/checkpoint.hpp"
#include "checkpoint/marks.hpp"
#include "checkpoint/run_listing.hpp"
#include "checkpoint/usable.hpp"
#include "formats/hdf5/container.hpp"
#include "manifest/names.hpp"
#include "os/file.hpp"

namespace cairn {

using namespace detail;

namespace {

namespace fs = std::filesystem;

/// The files that have the name of a step's checkpoint, the highest step first.
std::vector<fs::path> step_files(const fs::path& run_dir) {
  std::vector<fs::directory_entry> entries;
  try {
    entries = entries_of(run_dir);
  } catch (const Error& error) {
    if (error.code() != Errc::not_found) throw;  // a run that has not begun
  }
  std::vector<std::uint64_t> steps;
  for (const fs::directory_entry& entry : entries) {
    if (auto step = names::parse_checkpoint_file(entry.path().filename().string())) {
      steps.push_back(*step);
    }
  }
  std::sort(steps.rbegin(), steps.rend());
  std::vector<fs::path> files;
  for (const std::uint64_t step : steps) files.push_back(checkpoint_path(run_dir, step));
  return files;
}

void warn_passed_over(const fs::path& path, const std::string& why) {
  fmt::print(stderr, "cairn: warning: '{}' is passed over: {}\n", path.string(), why);
}

void try_mark_bad(const fs::path& checkpoint, const std::string& reason) noexcept {
  try {
    mark_bad(checkpoint, reason);
  } catch (const std::exception& error) {
    fmt::print(stderr, "cairn: warning: '{}' can't be marked as bad: {}\n", checkpoint.string(),
               error.what());
  }
}

[[noreturn]] void fail_all_bad(const fs::path& run_dir, const std::vector<std::string>& bad) {
  std::string list;
  for (const std::string& one : bad) list += fmt::format("\n  {}", one);
  fail(Errc::corrupt,
       "every committed checkpoint of the run '{}' is marked as bad:{}\n'cairn verify FILE --mark' "
       "looks at one again, and takes the mark away when it is whole",
       run_dir.string(), list);
}

}  // namespace

namespace detail {

std::optional<fs::path> newest_committed(const fs::path& run_dir) {
  for (const fs::path& path : step_files(run_dir)) {
    if (is_committed(path)) return path;
  }
  return std::nullopt;
}

std::optional<fs::path> newest_usable(const fs::path& run_dir) {
  std::vector<std::string> bad;
  for (const fs::path& path : step_files(run_dir)) {
    const bool committed = is_committed(path);
    if (const auto mark = unusable_mark_of(path, /*may_call_hdf5=*/false)) {
      const std::string why =
          fmt::format("marked as bad at {} on {}: {}", mark->at, mark->host, mark->reason);
      warn_passed_over(path, why);
      if (committed) bad.push_back(fmt::format("{}: {}", path.filename().string(), why));
    } else if (committed) {
      return path;
    } else {
      const std::string why = why_not_committed(path);
      warn_passed_over(path, why);
      std::error_code gone;
      if (fs::is_regular_file(path, gone)) try_mark_bad(path, why);
    }
  }
  if (!bad.empty()) fail_all_bad(run_dir, bad);
  return std::nullopt;
}

}  // namespace detail

std::optional<fs::path> newest_checkpoint(const fs::path& run_dir) {
  std::optional<fs::path> newest;  // even a bad one: who loads it is told, and does not start anew
  for (const fs::path& path : step_files(run_dir)) {
    if (!is_committed(path)) continue;
    if (!unusable_mark_of(path, /*may_call_hdf5=*/false)) return path;
    if (!newest) newest = path;
  }
  return newest;
}

}  // namespace cairn
