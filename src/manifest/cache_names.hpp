#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace cairn::detail::names {

// Where things lie in a cache (src/sources/cache.cpp says what they are).

/// The directory of the file that has this SHA-256.
std::filesystem::path cache_content(const std::filesystem::path& cache, std::string_view sha256);
/// The directory of what is known of a URL, by a digest of it.
std::filesystem::path cache_origin(const std::filesystem::path& cache, std::string_view digest);
/// The directory of a model of several files, by a digest of them all.
std::filesystem::path cache_model(const std::filesystem::path& cache, std::string_view digest);
/// In the first two: what it is; in the second: who asks the server.
inline constexpr std::string_view kCacheEntry = ".entry";
inline constexpr std::string_view kCacheLock = ".lock";

/// The directory for what is not whole yet, and for what is there for a moment: all that processes
/// leave behind that die.
std::filesystem::path cache_partials(const std::filesystem::path& cache);
/// A file of that directory that becomes another one.
std::filesystem::path cache_partial(const std::filesystem::path& cache, std::uint64_t nonce);
/// A file of that directory by which others look whether they see the same cache.
std::filesystem::path sight_file(const std::filesystem::path& cache, std::uint64_t nonce);

}  // namespace cairn::detail::names
