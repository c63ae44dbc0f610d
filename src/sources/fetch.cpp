#include "sources/fetch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "base/near_names.hpp"
#include "base/throw.hpp"
#include "sources/cache.hpp"
#include "sources/http.hpp"
#include "sources/hub.hpp"
#include "sources/local.hpp"
#include "sources/registry.hpp"
#include "sources/s3.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kGrace{5};  // for a fetch to notice its deadline

FetchLimits limits_of(const FetchOptions& options, const SourceSettings& settings) {
  FetchLimits limits;
  limits.max_retries = options.max_retries >= 0 ? options.max_retries : settings.max_retries;
  limits.timeout = options.timeout.count() > 0 ? options.timeout : settings.timeout;
  limits.deadline = Clock::now() + limits.timeout;
  limits.connections = options.connections;
  limits.part_bytes = options.part_bytes;
  if (limits.timeout.count() <= 0 || limits.max_retries < 0 || limits.connections == 0 ||
      limits.part_bytes == 0) {
    fail(Errc::usage,
         "timeout, connections and part_bytes of a source must be positive, and "
         "max_retries not negative");
  }
  return limits;
}

bool is_below(const fs::path& dir, const fs::path& path) {
  const fs::path base = fs::absolute(dir).lexically_normal();
  const fs::path inside = fs::absolute(path).lexically_normal().lexically_relative(base);
  return !inside.empty() && *inside.begin() != "..";
}

/// The files at or below a path that a registered function gave, if the cache holds them.
Fetched fetched_by_function(const fs::path& path, const fs::path& cache_dir,
                            const std::string& type) {
  std::error_code error;
  const auto status = fs::status(path, error);
  if (path.empty() || !fs::exists(status)) {
    fail(Errc::not_found, "the source type '{}' says '{}', and nothing is there", type,
         path.string());
  }
  Fetched fetched{fs::absolute(path)};
  if (!is_below(cache_dir, path)) return fetched;
  fetched.cache_dir = cache_dir;
  if (!fs::is_directory(status)) {
    fetched.files.push_back({fetched.path, fs::file_size(fetched.path)});
    return fetched;
  }
  for (const auto& entry : fs::recursive_directory_iterator(fetched.path)) {
    if (entry.is_regular_file()) fetched.files.push_back({entry.path(), entry.file_size()});
  }
  return fetched;
}

Fetched fetch_custom(const CustomSource& source, const FetchLimits& limits,
                     const fs::path& cache_dir) {
  const SourceFunction function = source_function(source.type);
  if (!function) {
    const auto types = registered_source_types();
    fail(Errc::usage, "there is no source type '{}'; register_source_type makes one known{}{}",
         source.type, types.empty() ? "" : ", as it did for: ",
         list_near(source.type, {types.begin(), types.end()}));
  }
  make_directories(cache_dir);
  return fetched_by_function(function(source, {cache_dir, limits.max_retries, limits.deadline}),
                             cache_dir, source.type);
}

Fetched fetch(const Source& source, const FetchOptions& options, const FetchLimits& limits,
              FetchState& state) {
  const fs::path cache_dir = fs::absolute(
      options.cache_dir.empty() ? default_cache_dir() : expand_home(options.cache_dir));
  const auto one = [&](const Remote& remote) {
    return fetched_file(fetch_cached(remote, cache_dir, limits, state), cache_dir);
  };
  if (const auto* http = std::get_if<HttpSource>(&source)) return one(remote_of(*http));
  if (const auto* s3 = std::get_if<S3Source>(&source)) return one(remote_of(*s3));
  if (const auto* hub = std::get_if<HubSource>(&source)) {
    return fetch_hub(*hub, cache_dir, limits, state);
  }
  return fetch_custom(std::get<CustomSource>(source), limits, cache_dir);
}

}  // namespace

Fetched fetched_file(const CachedFile& file, const fs::path& cache_dir) {
  return {file.path, cache_dir, {{file.path, file.size, file.sha256}}};
}

const FetchOptions* fetch_options(const Source& source) {
  return std::visit(
      [](const auto& any) -> const FetchOptions* {
        if constexpr (requires { any.fetch; }) {
          return &any.fetch;
        } else {
          return nullptr;
        }
      },
      source);
}

struct Fetch::State {
  Source source;
  FetchLimits limits;
  FetchState fetch;
  std::mutex mutex;
  std::condition_variable changed;
  const Clock::time_point begun = Clock::now();
  Clock::time_point ended;
  bool over = false;
  bool left_behind = false;
  Fetched fetched;
  std::exception_ptr failure;
  std::thread thread;

  void run(const FetchOptions& options) {
    Fetched result;
    std::exception_ptr thrown;
    try {
      result = detail::fetch(source, options, limits, fetch);
    } catch (...) {
      thrown = std::current_exception();
    }
    const std::lock_guard lock(mutex);
    fetched = std::move(result);
    failure = thrown;
    ended = Clock::now();
    over = true;
    changed.notify_all();
  }
};

Fetch::Fetch(const Source& source, const SourceSettings& settings)
    : state_(std::make_shared<State>()) {
  state_->source = source;
  if (const auto* options = fetch_options(state_->source)) {
    state_->limits = limits_of(*options, settings);
    state_->thread = std::thread([state = state_, options] { state->run(*options); });
    return;
  }
  const auto* local = std::get_if<LocalSource>(&source);
  state_->fetched.path = local != nullptr
                             ? find_local(*local, settings.fallback)
                             : find_run(std::get<RunSource>(source), settings.fallback);
  state_->ended = Clock::now();
  state_->over = true;
}

Fetch::~Fetch() {
  if (!state_->thread.joinable()) return;
  state_->fetch.cancelled = true;
  std::unique_lock lock(state_->mutex);
  const bool over =
      !state_->left_behind && state_->changed.wait_for(lock, kGrace, [&] { return state_->over; });
  lock.unlock();
  if (over) {
    state_->thread.join();
  } else {
    state_->thread.detach();
  }
}

bool Fetch::wait(std::chrono::milliseconds most) {
  std::unique_lock lock(state_->mutex);
  if (state_->changed.wait_for(lock, most, [&] { return state_->over; })) return true;
  state_->left_behind = Clock::now() > state_->limits.deadline + kGrace;
  return state_->left_behind;
}

FetchProgress Fetch::progress() const {
  return {state_->fetch.done_bytes, state_->fetch.total_bytes};
}

std::chrono::milliseconds Fetch::took() const {
  const std::lock_guard lock(state_->mutex);
  const auto end = state_->over ? state_->ended : Clock::now();
  return std::chrono::duration_cast<std::chrono::milliseconds>(end - state_->begun);
}

Fetched Fetch::get() {
  const std::lock_guard lock(state_->mutex);
  if (!state_->over) {
    fail(Errc::timeout, "{}: it does not come back, {} s after it began", describe(state_->source),
         std::chrono::duration<double>(state_->limits.timeout + kGrace).count());
  }
  if (state_->failure) std::rethrow_exception(state_->failure);
  return state_->fetched;
}

}  // namespace cairn::detail
