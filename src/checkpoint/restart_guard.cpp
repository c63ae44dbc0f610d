#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/nonce.hpp"
#include "base/throw.hpp"
#include "cairn/run.hpp"
#include "manifest/names.hpp"
#include "os/file.hpp"
#include "os/host.hpp"
#include "os/small_file.hpp"

namespace cairn {
namespace {

using namespace detail;
using Json = nlohmann::ordered_json;

struct Starts {
  std::int64_t step = -1;   ///< where the last one began; -1: at the beginning
  std::uint64_t count = 0;  ///< that began no later than the one before
  std::string since;
  std::string start;  ///< the last one, where it has a name
};

/// What a job's script calls this start, which it has counted itself, or will.
std::string this_start() {
  const char* start = std::getenv("CAIRN_START");
  return start == nullptr ? "" : start;
}

/// A count that can't be read is none: it must not keep a run from going on.
Starts read_starts(const std::filesystem::path& path) {
  try {
    const auto text = read_small_file(path);
    if (!text) return {};
    const Json json = Json::parse(*text);
    return {json.at("step"), json.at("starts_without_progress"), json.at("since"),
            json.value("start", "")};
  } catch (const Json::exception&) {
    return {};
  } catch (const Error& error) {
    if (error.code() != Errc::corrupt) throw;
    return {};
  }
}

}  // namespace

RestartGuard::RestartGuard(std::filesystem::path run_dir, std::uint64_t limit)
    : run_dir_(std::move(run_dir)), limit_(limit) {}

void RestartGuard::begin(const Comm& comm, std::optional<std::uint64_t> step) const {
  agree(comm, "begin run", [&] {
    if (!comm.is_root() || limit_ == 0) return;
    const std::filesystem::path path = run_dir_ / names::kRestarts;
    const std::int64_t now = step ? static_cast<std::int64_t>(*step) : -1;
    const std::string start = this_start();
    Starts starts = read_starts(path);
    const bool counted = !start.empty() && starts.start == start;
    if (counted && starts.count > 0) --starts.count;
    if (!counted && (starts.count == 0 || now > starts.step)) starts = {now, 0, utc_now(), {}};
    if (starts.count > limit_) {
      fail(Errc::refused,
           "the run '{}' was started {} times since {} and never got past {}, so it is not started "
           "again: look for the reason in its log. Remove '{}' to start it all the same, or raise "
           "save.max_restarts",
           run_dir_.string(), starts.count, starts.since,
           starts.step < 0 ? "its beginning" : fmt::format("step {}", starts.step), path.string());
    }
    if (counted) return;
    make_directories(run_dir_);
    write_small_file(path, names::partial_small(path, random_nonce()),
                     Json{{"step", now},
                          {"starts_without_progress", starts.count + 1},
                          {"since", starts.since},
                          {"start", start}}
                             .dump(2, ' ', false, Json::error_handler_t::replace) +
                         "\n",
                     "restarts.write");
  });
}

void RestartGuard::finish(const Comm& comm) const {
  agree(comm, "end run", [&] {
    if (comm.is_root() && !run_dir_.empty()) remove_quietly(run_dir_ / names::kRestarts);
  });
}

}  // namespace cairn
