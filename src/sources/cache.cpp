// The cache (cache_dir), from which nothing is ever removed but what is damaged:
//   <place>/.lock               held by who fetches or looks
//   <place>/.partial-<nonce>    being fetched; those of processes that died go after an hour
//   <place>/<version>/<name>    a whole file
//   <place>/<version>/.entry    what it is, as JSON; written last: without it the file does not
//   count
// A place is the SHA-256 that the file must have, or else that of its URL without what is secret
// in it; a version that of the server's ETag or date.
#include "sources/cache.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/nonce.hpp"
#include "base/sha256.hpp"
#include "base/throw.hpp"
#include "manifest/names.hpp"
#include "os/fault.hpp"
#include "os/lock.hpp"
#include "os/small_file.hpp"
#include "sources/url.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kWindowBytes = 4 << 20;
constexpr std::chrono::milliseconds kLockPause{100};
constexpr std::chrono::hours kOld{1};

const char* variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

/// Nothing also for what cannot be read: it is fetched again.
std::optional<std::string> read_small(const fs::path& path) {
  try {
    return read_small_file(path);
  } catch (const Error&) {
    return {};
  }
}

/// What an entry says, if it says it well and the file has that size.
std::optional<CachedFile> read_entry(const fs::path& dir) {
  const auto text = read_small(dir / names::kCacheEntry);
  if (!text) return {};
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  const auto text_of = [&](const char* key) {
    const auto value = json.find(key);
    return value != json.end() && value->is_string() ? value->get<std::string>() : "";
  };
  if (!json.is_object() || !json.contains("size") || !json["size"].is_number_unsigned()) return {};
  const std::string name = text_of("name");
  CachedFile file{dir / name, json["size"].get<std::uint64_t>(), text_of("sha256"),
                  Version{text_of("etag"), text_of("last_modified")}};
  std::error_code error;
  const bool whole = !name.empty() && fs::path(name).filename() == name &&
                     fs::file_size(file.path, error) == file.size && !error;
  return whole ? std::optional(file) : std::nullopt;
}

/// The file that the newest entry describes.
std::optional<CachedFile> newest_in(const fs::path& place) {
  std::optional<CachedFile> newest;
  fs::file_time_type newest_time{};
  std::error_code error;
  for (fs::directory_iterator at(place, error); !error && at != fs::directory_iterator();
       at.increment(error)) {
    std::error_code ignored;
    const auto time = fs::last_write_time(at->path() / names::kCacheEntry, ignored);
    if (ignored || (newest && time < newest_time)) continue;
    if (auto file = read_entry(at->path())) {
      newest = std::move(file);
      newest_time = time;
    }
  }
  return newest;
}

/// Of processes that died. What was written to lately may be another node's, where locks hold on
/// one node only.
void remove_old_partials(const fs::path& place) {
  std::vector<fs::path> partials;
  std::error_code error;
  for (fs::directory_iterator at(place, error); !error && at != fs::directory_iterator();
       at.increment(error)) {
    std::error_code gone;
    const auto age = fs::file_time_type::clock::now() - fs::last_write_time(at->path(), gone);
    if (!gone && age > kOld && names::is_cache_partial(at->path().filename().string())) {
      partials.push_back(at->path());
    }
  }
  for (const fs::path& partial : partials) remove_quietly(partial);
}

/// Waits until no other process is at the place.
FileLock lock(const fs::path& place, const Remote& remote, const FetchLimits& limits,
              const FetchState& state) {
  FileLock lock;
  while (!lock.try_lock(place / names::kCacheLock)) {
    check_deadline(limits, state, fmt::format("{} (another process fetches it)", remote.shown));
    std::this_thread::sleep_for(kLockPause);
  }
  remove_old_partials(place);
  return lock;
}

bool is_sound(const CachedFile& file, const FetchLimits& limits, const FetchState& state) {
  try {
    return sha256_of_file(file.path, limits, state) == file.sha256;
  } catch (const Error& error) {
    if (error.code() == Errc::timeout) throw;
    return false;  // what cannot be read is fetched again
  }
}

/// Makes a whole file count.
void commit(const Remote& remote, const fs::path& partial, const CachedFile& file) {
  const fs::path dir = file.path.parent_path();
  make_directories(dir);
  fault_point("cache.rename");
  replace_file(partial, file.path);
  const nlohmann::json json{{"name", file.path.filename().string()},
                            {"url", masked_url(remote.url)},
                            {"etag", file.version.etag},
                            {"last_modified", file.version.last_modified},
                            {"size", file.size},
                            {"sha256", file.sha256}};
  const std::string text =
      json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  const fs::path entry = dir / names::kCacheEntry;
  File out = File::create(partial);
  out.write_at(0, std::as_bytes(std::span(text)), "cache.entry");
  out.sync();
  out.close();
  fault_point("cache.entry_rename");
  replace_file(partial, entry);
  sync_directory(dir);
}

std::string version_key(const Downloaded& got, const std::string& sha256) {
  const Version& version = got.version;
  // A date and a size may be those of other bytes, too.
  if (version.etag.empty()) return sha256.substr(0, 16);
  const auto digest =
      sha256_of(fmt::format("{}\n{}\n{}", version.etag, version.last_modified, got.size));
  return to_hex(digest).substr(0, 16);
}

CachedFile download_to(const fs::path& place, const Remote& remote, const std::string& expected,
                       const FetchLimits& limits, const std::optional<CachedFile>& known,
                       FetchState& state) {
  const fs::path partial = place / names::cache_partial(random_nonce());
  try {
    File file = File::create(partial);
    const Downloaded got = download(remote, file, limits, known ? known->version : Version{},
                                    !expected.empty(), state);
    if (got.unchanged) {
      file.close();
      remove_quietly(partial);
      CachedFile same = *known;
      same.commit = got.commit;
      return same;
    }
    file.sync();
    file.close();
    const std::string sha256 = sha256_of_file(partial, limits, state);
    if (!expected.empty() && sha256 != expected) {
      fail(Errc::corrupt,
           "{}: the SHA-256 of what came is {}, but {} is expected; check the file and "
           "checkpoint.source.sha256",
           remote.shown, sha256, expected);
    }
    const CachedFile whole{place / version_key(got, sha256) / remote.name, got.size, sha256,
                           got.version, got.commit};
    commit(remote, partial, whole);
    return whole;
  } catch (...) {
    remove_quietly(partial);
    throw;
  }
}

}  // namespace

fs::path default_cache_dir() {
  if (const char* dir = variable("CAIRN_CACHE_DIR")) return dir;
  if (const char* dir = variable("XDG_CACHE_HOME")) return fs::path(dir) / "cairn";
  if (const char* home = variable("HOME")) return fs::path(home) / ".cache" / "cairn";
  fail(Errc::usage,
       "there is no place to keep what is fetched: set checkpoint.source.cache_dir, or "
       "$CAIRN_CACHE_DIR, $XDG_CACHE_HOME or $HOME");
}

CachedFile fetch_cached(const Remote& remote, const std::string& sha256, const fs::path& cache_dir,
                        const FetchLimits& limits, FetchState& state) {
  const std::string key =
      sha256.empty() ? to_hex(sha256_of(url_without_secrets(remote.url))) : sha256;
  const fs::path place = cache_dir / key;
  make_directories(place);
  const auto wanted = [&](const CachedFile& file) {
    return !sha256.empty() && file.sha256 == sha256;
  };
  for (bool damaged = false;;) {
    std::optional<CachedFile> known;
    {
      const FileLock held = lock(place, remote, limits, state);
      known = newest_in(place);
      // Looked at again: another process may have replaced it meanwhile.
      if (known && damaged && !is_sound(*known, limits, state)) {
        remove_quietly(known->path.parent_path() / names::kCacheEntry);
        remove_quietly(known->path);
        known.reset();
      }
      if (!known || !wanted(*known)) {
        const CachedFile file = download_to(place, remote, sha256, limits,
                                            sha256.empty() ? known : std::nullopt, state);
        if (!known || file.path != known->path) return file;
        known = file;
      }
    }
    // Without the lock, because it takes a while, and others may want the same file.
    if (is_sound(*known, limits, state)) return *known;
    damaged = true;
  }
}

std::string sha256_of_file(const fs::path& path, const FetchLimits& limits,
                           const FetchState& state) {
  const File file = File::open_read(path);
  const std::uint64_t size = file.size();
  std::vector<std::byte> window;
  Sha256 hash;
  for (std::uint64_t at = 0; at < size; at += window.size()) {
    check_deadline(limits, state, path.string());
    window.resize(std::min<std::uint64_t>(kWindowBytes, size - at));
    file.read_at(at, window);
    hash.update(window);
  }
  return to_hex(hash.finish());
}

}  // namespace cairn::detail
