// The cache (cache_dir), from which nothing is removed but what processes left behind that died:
//   content/<SHA-256>/<name>    a whole file
//   content/<SHA-256>/.entry    that it is whole, its name and size; written last: without it the
//                               file does not count. Other names of it are links.
//   origins/<digest>/.entry     what the server had last at a URL: the version and its SHA-256
//   origins/<digest>/.lock      held by who asks the server
//   models/<digest>/...         links to the files of a model (hub.cpp)
//   partial/...                 being fetched or written; of processes that died after a day
// The digest of a URL is that of its text without what signs it. Entries are JSON.
//
// Jobs do not wait for each other but for the lock of a URL. Without it nothing goes wrong, either:
// a file of content/ is only ever replaced, at once, by one of the same bytes. One that is damaged
// loses its entry, and stays until then.
#include "sources/cache.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/nonce.hpp"
#include "base/sha256.hpp"
#include "base/throw.hpp"
#include "manifest/cache_names.hpp"
#include "os/environment.hpp"
#include "os/fault.hpp"
#include "os/lock.hpp"
#include "os/small_file.hpp"
#include "sources/file_hash.hpp"
#include "sources/url.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::chrono::milliseconds kLockPause{100};
// Longer than any hash takes: a partial file is not written to meanwhile.
constexpr std::chrono::hours kOld{24};

/// An entry as JSON; nothing also for what cannot be read or understood: it is made again.
std::optional<Json> read_entry(const fs::path& dir) {
  std::optional<std::string> text;
  try {
    text = read_small_file(dir / names::kCacheEntry);
  } catch (const Error&) {
    return {};
  }
  Json json = Json::parse(text.value_or(""), nullptr, false);
  return json.is_object() ? std::optional(std::move(json)) : std::nullopt;
}

std::string text_of(const Json& entry, const char* key) {
  const auto value = entry.find(key);
  return value != entry.end() && value->is_string() ? value->get<std::string>() : "";
}

void write_entry(const fs::path& cache, const fs::path& dir, const Json& json,
                 std::string_view point) {
  write_small_file(dir / names::kCacheEntry, names::cache_partial(cache, random_nonce()),
                   json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n", point);
}

/// The name under which a whole file lies in its directory; empty where the entry says none.
std::string stored_name(const Json& entry) {
  std::string name = text_of(entry, "name");
  return fs::path(name).filename() == name && !name.starts_with('.') ? name : "";
}

/// The file of this content, if the cache has one of the right size.
std::optional<CachedFile> find_content(const fs::path& cache, const std::string& sha256) {
  const fs::path dir = names::cache_content(cache, sha256);
  const auto entry = read_entry(dir);
  if (!entry) return {};
  const std::string name = stored_name(*entry);
  const auto size = entry->find("size");
  if (name.empty() || size == entry->end() || !size->is_number_unsigned()) return {};
  CachedFile file{dir / name, size->get<std::uint64_t>(), sha256};
  std::error_code error;
  const bool whole = fs::file_size(file.path, error) == file.size && !error;
  return whole ? std::optional(std::move(file)) : std::nullopt;
}

/// What the server had last, if the cache has that.
std::optional<CachedFile> find_origin(const fs::path& cache, const fs::path& origin) {
  const auto entry = read_entry(origin);
  const auto sha256 = entry ? parse_sha256(text_of(*entry, "sha256")) : std::nullopt;
  if (!sha256) return {};
  auto file = find_content(cache, *sha256);
  if (file) file->version = {text_of(*entry, "etag"), text_of(*entry, "last_modified")};
  return file;
}

/// The file under the name that it has where it comes from.
CachedFile with_name(const fs::path& cache, CachedFile file, const std::string& name) {
  const std::string stored = file.path.filename().string();
  if (stored == name) return file;
  file.path.replace_filename(name);
  std::error_code error;
  if (fs::read_symlink(file.path, error) != stored || error) {
    make_directories(names::cache_partials(cache));
    replace_link(stored, file.path, names::cache_partial(cache, random_nonce()));
  }
  return file;
}

/// Waits until no other process asks for the same URL.
FileLock lock(const fs::path& origin, const Remote& remote, const FetchLimits& limits,
              const FetchState& state) {
  FileLock lock;
  while (!lock.try_lock(origin / names::kCacheLock)) {
    check_deadline(limits, state, fmt::format("{} (another process fetches it)", remote.shown));
    std::this_thread::sleep_for(kLockPause);
  }
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
CachedFile store(const fs::path& cache, const fs::path& partial, const Remote& remote,
                 const Downloaded& got, const std::string& sha256) {
  const fs::path dir = names::cache_content(cache, sha256);
  make_directories(dir);
  // In place of one that is damaged.
  const auto old = read_entry(dir);
  const std::string old_name = old ? stored_name(*old) : "";
  const std::string name = old_name.empty() ? remote.name : old_name;
  fault_point("cache.rename");
  replace_file(partial, dir / name);
  write_entry(cache, dir, {{"name", name}, {"size", got.size}, {"sha256", sha256}}, "cache.entry");
  return {dir / name, got.size, sha256, got.version, got.commit};
}

CachedFile download_to(const fs::path& cache, const fs::path& origin, const Remote& remote,
                       const FetchLimits& limits, const std::optional<CachedFile>& known,
                       FetchState& state) {
  make_directories(names::cache_partials(cache));
  const fs::path partial = names::cache_partial(cache, random_nonce());
  try {
    File file = File::create(partial);
    const Downloaded got = download(remote, file, limits, known ? known->version : Version{},
                                    !remote.sha256.empty(), state);
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
    if (!remote.sha256.empty() && sha256 != remote.sha256) {
      fail(Errc::corrupt,
           "{}: the SHA-256 of what came is {}, but {} is expected; check the file and "
           "checkpoint.source.sha256",
           remote.shown, sha256, remote.sha256);
    }
    CachedFile whole = store(cache, partial, remote, got, sha256);
    write_entry(cache, origin,
                {{"url", masked_url(remote.url)},
                 {"etag", got.version.etag},
                 {"last_modified", got.version.last_modified},
                 {"sha256", sha256}},
                "cache.origin");
    return whole;
  } catch (...) {
    remove_quietly(partial);
    throw;
  }
}

CachedFile fetch_content(const Remote& remote, const fs::path& cache, const FetchLimits& limits,
                         FetchState& state) {
  const auto wanted = [&] {
    return remote.sha256.empty() ? std::nullopt : find_content(cache, remote.sha256);
  };
  auto known = wanted();
  if (known && is_sound(*known, limits, state)) return *known;
  const std::string digest = to_hex(sha256_of(url_without_signature(remote.url)));
  const fs::path origin = names::cache_origin(cache, digest);
  make_directories(origin);
  remove_old_partials(cache);
  for (bool damaged = known.has_value();;) {
    {
      const FileLock held = lock(origin, remote, limits, state);
      known = remote.sha256.empty() ? find_origin(cache, origin) : wanted();
      // Looked at again: another process may have replaced it meanwhile.
      if (known && damaged && !is_sound(*known, limits, state)) {
        remove_quietly(known->path.parent_path() / names::kCacheEntry);
        known.reset();
      }
      if (!known || remote.sha256.empty()) {
        CachedFile file = download_to(cache, origin, remote, limits, known, state);
        if (!known || file.sha256 != known->sha256) return file;
        known = file;
      }
    }
    // Without the lock, because it takes a while, and others may want the same file.
    if (is_sound(*known, limits, state)) return *known;
    damaged = true;
  }
}

}  // namespace

fs::path default_cache_dir() {
  if (const std::string dir = environment("CAIRN_CACHE_DIR"); !dir.empty()) return dir;
  if (const std::string dir = environment("XDG_CACHE_HOME"); !dir.empty()) {
    return fs::path(dir) / "cairn";
  }
  if (const std::string home = environment("HOME"); !home.empty()) {
    return fs::path(home) / ".cache" / "cairn";
  }
  fail(Errc::usage,
       "there is no place to keep what is fetched: set checkpoint.source.cache_dir, or "
       "$CAIRN_CACHE_DIR, $XDG_CACHE_HOME or $HOME");
}

CachedFile fetch_cached(const Remote& remote, const fs::path& cache_dir, const FetchLimits& limits,
                        FetchState& state) {
  return with_name(cache_dir, fetch_content(remote, cache_dir, limits, state), remote.name);
}

void remove_old_partials(const fs::path& cache_dir) {
  std::vector<fs::path> partials;
  std::error_code error;
  for (fs::directory_iterator at(names::cache_partials(cache_dir), error);
       !error && at != fs::directory_iterator(); at.increment(error)) {
    std::error_code gone;
    const auto age = fs::file_time_type::clock::now() - fs::last_write_time(at->path(), gone);
    if (!gone && age > kOld) partials.push_back(at->path());
  }
  for (const fs::path& partial : partials) remove_quietly(partial);
}

std::string sha256_of_file(const fs::path& path, const FetchLimits& limits,
                           const FetchState& state) {
  FileHash hash(path);
  do {
    check_deadline(limits, state, path.string());
  } while (hash.goes_on());
  return hash.hex();
}

}  // namespace cairn::detail
