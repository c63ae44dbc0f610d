#include "manifest/cache_names.hpp"

#include <fmt/format.h>

namespace cairn::detail::names {

namespace fs = std::filesystem;

fs::path cache_content(const fs::path& cache, std::string_view sha256) {
  return cache / "content" / sha256;
}

fs::path cache_origin(const fs::path& cache, std::string_view digest) {
  return cache / "origins" / digest;
}

fs::path cache_model(const fs::path& cache, std::string_view digest) {
  return cache / "models" / digest;
}

fs::path cache_partials(const fs::path& cache) { return cache / "partial"; }

fs::path cache_partial(const fs::path& cache, std::uint64_t nonce) {
  return cache_partials(cache) / fmt::format("{:016x}", nonce);
}

fs::path sight_file(const fs::path& cache, std::uint64_t nonce) {
  return cache_partials(cache) / fmt::format("sight-{:016x}", nonce);
}

}  // namespace cairn::detail::names
