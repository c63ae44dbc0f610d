#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "sources/download.hpp"

namespace cairn::detail {

/// A whole file in the cache.
struct CachedFile {
  std::filesystem::path path;
  std::uint64_t size = 0;
  std::string sha256;
  Version version = {};
  std::string commit = {};
};

/// $CAIRN_CACHE_DIR, else $XDG_CACHE_HOME/cairn, else ~/.cache/cairn. Errors: usage (none is set).
/// Local.
std::filesystem::path default_cache_dir();

/// The file of `remote`, from the cache if the server still has that version, or, where its SHA-256
/// is given, if the cache has such a file, wherever it came from. The bytes in the cache are
/// compared with their digest each time: a damaged file is fetched again. Other processes may do
/// the same at the same time: one asks for a URL, the others wait for it. On return the file is
/// whole and durable. Local. Errors: corrupt (another SHA-256), and those of download.
CachedFile fetch_cached(const Remote& remote, const std::filesystem::path& cache_dir,
                        const FetchLimits& limits, FetchState& state);

/// Removes what processes left behind in the cache that died: what nobody wrote to for a day.
/// Local.
void remove_old_partials(const std::filesystem::path& cache_dir);

/// The SHA-256 of a file, in hexadecimal. Local. Errors: not_found, io, timeout.
std::string sha256_of_file(const std::filesystem::path& path, const FetchLimits& limits,
                           const FetchState& state);

}  // namespace cairn::detail
