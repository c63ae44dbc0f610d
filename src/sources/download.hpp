#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

#include "os/file.hpp"
#include "sources/request.hpp"

namespace cairn::detail {

/// Which version of a file a server has or had.
struct Version {
  std::string etag;
  std::string last_modified;
  /// Whether an equal ETag means equal bytes: a weak one does not promise that.
  bool is_strong() const { return !etag.empty() && !etag.starts_with("W/"); }
};

struct FetchLimits {
  int max_retries = 0;
  std::chrono::milliseconds timeout{};
  std::chrono::steady_clock::time_point deadline;  ///< `timeout` after the begin
  unsigned connections = 1;
  std::uint64_t part_bytes = 0;
};

/// How far a fetch is; other threads may look and may end it.
struct FetchState {
  std::atomic<std::uint64_t> done_bytes{0};
  std::atomic<std::uint64_t> total_bytes{0};  ///< of the files whose sizes are known so far
  std::atomic<bool> cancelled{false};
};

struct Downloaded {
  bool unchanged = false;  ///< the server still has the known version: no byte came
  Version version;
  std::uint64_t size = 0;
  std::string commit;  ///< x-repo-commit
};

/// Fetches the file into `into`, whose size becomes the file's; `known` is the version that need
/// not be sent again. `has_digest` says that the caller will know a truncated file by its digest.
/// Local; calls neither MPI nor HDF5. Errors: not_found, io, timeout, usage, unsupported (no way to
/// tell whether the file is whole).
Downloaded download(const Remote& remote, const File& into, const FetchLimits& limits,
                    const Version& known, bool has_digest, FetchState& state);

/// Errors: timeout when `limits.deadline` has passed, or when the fetch was cancelled.
void check_deadline(const FetchLimits& limits, const FetchState& state, const std::string& what);

}  // namespace cairn::detail
