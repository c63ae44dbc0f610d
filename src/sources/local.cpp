#include "sources/local.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/near_names.hpp"
#include "base/text.hpp"
#include "base/throw.hpp"
#include "cairn/checkpoint.hpp"
#include "checkpoint/newest.hpp"
#include "formats/detect.hpp"
#include "manifest/names.hpp"
#include "os/environment.hpp"
#include "os/file.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostEntries = 10'000;  // a directory may be huge, and this is only advice

/// "; near it: 'a', 'b'": the names in the directory that are most like the path's.
std::string siblings_of(const fs::path& path) {
  const fs::path parent = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::error_code error;
  fs::directory_iterator entries(parent, error);
  if (error) {
    return fs::exists(parent, error)
               ? ""
               : fmt::format("; the directory '{}' does not exist", parent.string());
  }
  std::vector<std::string> names;
  for (; !error && entries != fs::directory_iterator() && names.size() < kMostEntries;
       entries.increment(error)) {
    std::string name = entries->path().filename().string();
    if (!name.starts_with('.')) names.push_back(std::move(name));
  }
  if (names.empty()) return fmt::format("; '{}' is empty", parent.string());
  return fmt::format("; near it: {}",
                     list_near(path.filename().string(), {names.begin(), names.end()}));
}

std::optional<fs::path> find_newest(const fs::path& run, bool fallback) {
  return fallback ? newest_usable(run) : newest_committed(run);
}

fs::path newest_of(const fs::path& run, bool fallback) {
  const auto newest = find_newest(run, fallback);
  if (!newest) {
    fail(Errc::not_found,
         "run directory '{}' has no committed checkpoint; name a file to look at an incomplete "
         "one",
         run.string());
  }
  return *newest;
}

/// The newest checkpoint of a run, or the directory itself where it is a checkpoint.
fs::path checkpoint_in(const fs::path& directory, bool fallback) {
  const auto is_of_run = [](const fs::directory_entry& entry) {
    const std::string name = entry.path().filename().string();
    return name.starts_with('.') || names::parse_checkpoint_file(name);
  };
  if (const auto newest = find_newest(directory, fallback)) return *newest;
  if (find_in_directory(directory)) return directory;
  const std::vector<fs::directory_entry> entries = entries_of(directory);
  if (std::all_of(entries.begin(), entries.end(), is_of_run)) {
    return newest_of(directory, fallback);
  }
  fail(Errc::unsupported,
       "the directory '{}' holds neither checkpoints of a run (step-*.h5) nor files of another "
       "format that cairn knows ({}); name a file",
       directory.string(), kLookedFor);
}

}  // namespace

fs::path expand_home(const fs::path& path) {
  const std::string& text = path.native();
  if (!text.starts_with('~')) return path;
  if (text.size() > 1 && text[1] != '/') {
    std::error_code ignored;
    if (fs::exists(path, ignored)) return path;  // a file may be called "~x"
    fail(Errc::usage, "'{}': only '~' and '~/' are understood, not another user's home", text);
  }
  const std::string home = environment("HOME");
  if (home.empty()) {
    fail(Errc::usage, "'{}' needs $HOME, which is not set; give the whole path", text);
  }
  return fs::path(home + text.substr(1));
}

bool is_inside(const std::string& name) {
  const fs::path path(name);
  const bool plain = std::none_of(
      name.begin(), name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f || c == '\\'; });
  return plain && !name.empty() && path.is_relative() && path.has_filename() &&
         std::none_of(path.begin(), path.end(), [](const fs::path& component) {
           return component == ".." || component == "." || component.empty();
         });
}

fs::path find_local(const LocalSource& source, bool fallback) {
  if (source.path.empty()) fail(Errc::usage, "the path of the checkpoint is empty");
  const fs::path path = expand_home(source.path);
  std::error_code error;
  const auto status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) {
    const bool dangling = fs::is_symlink(fs::symlink_status(path, error));
    if (dangling) {
      fail(Errc::not_found, "'{}' is a link to '{}', which does not exist", path.string(),
           fs::read_symlink(path, error).string());
    }
    fail(Errc::not_found, "'{}' does not exist{}", path.string(), siblings_of(path));
  }
  if (fs::is_directory(status)) return checkpoint_in(path, fallback);
  // What cannot be examined, opening it tells better.
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    fail(Errc::unsupported, "'{}' is neither a file nor a run directory", path.string());
  }
  return path;
}

fs::path find_run(const RunSource& source, bool fallback) {
  if (source.root.empty() || source.run_id.empty()) {
    fail(Errc::usage, "a run needs its root (checkpoint.source.root or save.root) and its id");
  }
  const fs::path run = expand_home(source.root) / source.run_id;
  if (fs::path(source.run_id).has_parent_path() || source.run_id == "." || source.run_id == "..") {
    fail(Errc::usage, "the run's id '{}' is a path; it must be the name of a directory in '{}'",
         source.run_id, source.root.string());
  }
  std::error_code error;
  if (!fs::exists(run, error) && !error) {
    fail(Errc::not_found, "there is no run '{}' in '{}'{}", source.run_id, source.root.string(),
         siblings_of(run));
  }
  if (!source.file.empty()) {
    if (!is_inside(source.file)) {
      fail(Errc::usage, "the file '{}' is not a path inside the run's directory '{}'",
           printable(source.file), run.string());
    }
    return find_local({run / source.file}, fallback);
  }
  // Runs of other trainers end in this file, until cairn has saved into them.
  const fs::path last = run / names::kLastOfOthers;
  if (!newest_checkpoint(run) && fs::exists(last, error)) return last;
  return newest_of(run, fallback);
}

bool is_newest_of_run(const Source& source, const fs::path& path) {
  if (!names::parse_checkpoint_file(path.filename().string())) return false;
  if (const auto* run = std::get_if<RunSource>(&source)) return run->file.empty();
  const auto* local = std::get_if<LocalSource>(&source);
  std::error_code error;
  return local != nullptr && fs::is_directory(expand_home(local->path), error);
}

fs::path resolve_local(const Comm& comm, const fs::path& path) {
  SourceSettings settings;
  settings.fallback = false;  // who looks at a run must see a damaged checkpoint, and mark nothing
  return resolve_source(comm, LocalSource{path}, settings);
}

}  // namespace cairn::detail
