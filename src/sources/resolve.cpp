#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <exception>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "cairn/checkpoint.hpp"
#include "cairn/source.hpp"
#include "checkpoint/usable.hpp"
#include "mpi/time_limit.hpp"
#include "sources/acquisition.hpp"
#include "sources/fetch.hpp"
#include "sources/local.hpp"
#include "sources/progress.hpp"
#include "sources/spread.hpp"

namespace cairn {
namespace detail {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

/// How often the ranks that wait hear of rank 0: their waits end with the communicator's deadline,
/// and a fetch may take longer.
constexpr milliseconds kPulse{250};

/// Whether the time of the fetch is not the pipeline's.
bool has_own_timeout(const Source& source) {
  const FetchOptions* options = fetch_options(source);
  return options != nullptr && options->timeout.count() > 0;
}

}  // namespace

/// What rank 0 does while the others wait.
class Acquisition::Waiting {
 public:
  Waiting(const Source& source, const SourceSettings& settings)
      : settings_(settings), fetch_(source, settings), name_(describe(source)) {}

  bool is_over() { return fetch_.wait(milliseconds(0)); }

  /// Whether the fetch still goes on.
  bool goes_on() {
    if (fetch_.wait(kPulse)) return false;
    if (settings_.progress) {
      settings_.progress(fetch_.progress());
    } else {
      if (!line_) line_.emplace(name_);
      line_->show(fetch_.progress());
    }
    return true;
  }

  milliseconds took() const { return fetch_.took(); }
  std::uint64_t bytes() const { return fetch_.progress().done_bytes; }
  Fetched get() { return fetch_.get(); }

 private:
  const SourceSettings& settings_;
  Fetch fetch_;
  std::string name_;
  std::optional<ProgressLine> line_;  // only where somebody waits
};

Acquisition::Acquisition(const Comm& comm, Source source, SourceSettings settings)
    : source_(std::move(source)), settings_(std::move(settings)) {
  if (!comm.is_root()) return;
  try {
    waiting_ = std::make_unique<Waiting>(source_, settings_);
  } catch (...) {
    failure_ = std::current_exception();
  }
}

Acquisition::~Acquisition() = default;

bool Acquisition::is_over() const { return waiting_ == nullptr || waiting_->is_over(); }

std::uint64_t Acquisition::bytes() const { return waiting_ == nullptr ? 0 : waiting_->bytes(); }

std::filesystem::path Acquisition::get(const Comm& comm) {
  std::array<std::uint64_t, 3> news{};  // whether it goes on; what is left of the time, and all
  do {
    news = {};
    if (waiting_ && !failure_) {
      try {
        news[0] = waiting_->goes_on() ? 1 : 0;
      } catch (...) {
        failure_ = std::current_exception();
      }
    }
    if (comm.is_root()) {
      const bool own = has_own_timeout(source_) || waiting_ == nullptr;
      const auto left = settings_.timeout - (own ? milliseconds(0) : waiting_->took());
      news[1] = static_cast<std::uint64_t>(std::max(left, milliseconds(0)).count());
      news[2] = static_cast<std::uint64_t>(settings_.timeout.count());
    }
    comm.all_reduce_max(std::span<std::uint64_t>(news));
  } while (news[0] != 0);
  until_ = Clock::now() + milliseconds(news[1]);
  timeout_ = milliseconds(news[2]);

  const TimeLimit limit(until_, limit_text(timeout_));
  Fetched fetched;
  std::string path;
  agree(comm, "resolve source", [&] {
    if (failure_) std::rethrow_exception(failure_);
    if (comm.is_root()) {
      fetched = waiting_->get();
      path = fetched.path.string();
    }
  });
  comm.broadcast(path);
  spread_files(comm, std::move(fetched));
  return path;
}

std::string limit_text(milliseconds timeout) {
  return fmt::format("the time that the whole load may take, pipeline.timeout ({} s),",
                     std::chrono::duration<double>(timeout).count());
}

}  // namespace detail

std::filesystem::path resolve_source(const Comm& comm, const Source& source,
                                     const SourceSettings& settings) {
  return detail::Acquisition(comm, source, settings).get(comm);
}

namespace {

/// What is damaged in the file itself: a program may also refuse what was saved well, and must not
/// mark a whole run as bad for that. Collective.
std::vector<Defect> damage_of(const Comm& comm, const std::filesystem::path& path) {
  try {
    const Manifest manifest = open_checkpoint(comm, path);
    return verify_tensors(comm, manifest).defects;
  } catch (const Error& error) {
    if (error.code() == Errc::timeout) throw;
    // Agreed, so the same on all ranks.
    if (error.code() != Errc::corrupt) return {};
    return {Defect{{}, {}, -1, error.what(), {}}};
  }
}

/// Marks what is damaged; whether resolve_source passes over `path` now. Local.
bool pass_over(const std::filesystem::path& path, std::span<const Defect> damage) noexcept {
  try {
    for (const auto& file : detail::mark_damage(path, damage)) {
      fmt::print(stderr, "cairn: warning: '{}' is marked as bad\n", file.string());
    }
    return true;
  } catch (const std::exception& error) {
    fmt::print(stderr, "cairn: warning: '{}' can't be marked as bad: {}\n", path.string(),
               error.what());
    return false;
  }
}

}  // namespace

bool skip_damaged(const Comm& comm, const Source& source, const SourceSettings& settings,
                  const std::filesystem::path& path, const Error& error) {
  std::uint64_t newest[1] = {0};
  agree(comm, "skip damaged checkpoint", [&] {
    if (!comm.is_root() || !settings.fallback || error.code() != Errc::corrupt) return;
    newest[0] = detail::is_newest_of_run(source, path) ? 1 : 0;
  });
  comm.all_reduce_max(std::span<std::uint64_t>(newest));
  if (newest[0] == 0) return false;
  const std::vector<Defect> damage = damage_of(comm, path);
  if (damage.empty()) return false;
  std::uint64_t skipped[1] = {0};
  agree(comm, "skip damaged checkpoint", [&] {
    if (!comm.is_root() || !pass_over(path, damage)) return;
    fmt::print(stderr, "cairn: warning: '{}' is damaged, and an older one is tried: {}\n",
               path.string(), error.what());
    skipped[0] = 1;
  });
  comm.all_reduce_max(std::span<std::uint64_t>(skipped));
  return skipped[0] != 0;
}

}  // namespace cairn
