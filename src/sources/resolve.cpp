#include <fmt/format.h>

#include <array>
#include <exception>
#include <optional>
#include <span>
#include <utility>

#include "cairn/source.hpp"
#include "checkpoint/newest.hpp"
#include "sources/fetch.hpp"
#include "sources/local.hpp"
#include "sources/progress.hpp"
#include "sources/spread.hpp"

namespace cairn {
namespace {

using namespace detail;

/// How often the ranks that wait hear of rank 0: their waits end with the communicator's deadline,
/// and a fetch may take longer.
constexpr std::chrono::milliseconds kPulse{250};

/// What rank 0 does while the others wait.
class Waiting {
 public:
  Waiting(const Source& source, const SourceSettings& settings)
      : settings_(settings), fetch_(source, settings), line_(describe(source)) {}

  /// Whether the fetch still goes on.
  bool goes_on() {
    if (fetch_.wait(kPulse)) return false;
    if (settings_.progress) {
      settings_.progress(fetch_.progress());
    } else {
      line_.show(fetch_.progress());
    }
    return true;
  }

  Fetched get() { return fetch_.get(); }

 private:
  const SourceSettings& settings_;
  Fetch fetch_;
  ProgressLine line_;
};

}  // namespace

std::filesystem::path resolve_source(const Comm& comm, const Source& source,
                                     const SourceSettings& settings) {
  std::optional<Waiting> waiting;  // on rank 0
  std::exception_ptr failure;
  std::array<std::uint64_t, 1> busy{};
  do {
    busy[0] = 0;
    if (comm.is_root()) {
      try {
        if (!waiting) waiting.emplace(source, settings);
        busy[0] = waiting->goes_on() ? 1 : 0;
      } catch (...) {
        failure = std::current_exception();
      }
    }
    comm.all_reduce_max(std::span<std::uint64_t>(busy));
  } while (busy[0] != 0);

  Fetched fetched;
  agree(comm, "resolve source", [&] {
    if (failure) std::rethrow_exception(failure);
    if (comm.is_root()) fetched = waiting->get();
  });
  std::string path = fetched.path.string();
  comm.broadcast(path);
  spread_files(comm, std::move(fetched.files));
  return path;
}

bool skip_damaged(const Comm& comm, const Source& source, const SourceSettings& settings,
                  const std::filesystem::path& path, const Error& error) {
  std::uint64_t skipped[1] = {0};
  agree(comm, "skip damaged checkpoint", [&] {
    if (!comm.is_root() || !settings.fallback || error.code() != Errc::corrupt) return;
    if (!is_newest_of_run(source, path) || !try_mark_bad(path, error.what())) return;
    fmt::print(stderr, "cairn: warning: '{}' is marked as bad, and an older one is tried: {}\n",
               path.string(), error.what());
    skipped[0] = 1;
  });
  comm.all_reduce_max(std::span<std::uint64_t>(skipped));
  return skipped[0] != 0;
}

}  // namespace cairn
