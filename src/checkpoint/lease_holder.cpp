#include "checkpoint/lease_holder.hpp"

#include <fmt/format.h>
#include <pwd.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <system_error>

#include "base/digest.hpp"
#include "os/environment.hpp"
#include "os/host.hpp"

namespace cairn::detail {
namespace {

using Json = nlohmann::ordered_json;

std::string first_line(const char* path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

std::string user_name() {
  // The name service may be out of order; the number says enough.
  const passwd* entry = ::getpwuid(::geteuid());
  return entry == nullptr ? fmt::format("user {}", ::geteuid()) : entry->pw_name;
}

struct ProcessState {
  char state = '?';
  std::uint64_t start = 0;
};

/// proc(5): fields 3 and 22 of stat, behind the name, which may hold anything.
std::optional<ProcessState> state_of(std::int64_t process) {
  const std::string line = first_line(fmt::format("/proc/{}/stat", process).c_str());
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(name_end + 1));
  ProcessState found;
  fields >> found.state;
  std::string skipped;
  for (int field = 4; field < 22; ++field) fields >> skipped;
  fields >> found.start;
  return fields ? std::optional(found) : std::nullopt;
}

bool is_alive(const LeaseHolder& holder) {
  if (::kill(static_cast<pid_t>(holder.process), 0) != 0 && errno == ESRCH) return false;
  const auto now = state_of(holder.process);
  if (!now) return true;  // some systems hide the processes of others
  return now->start == holder.process_start && now->state != 'Z' && now->state != 'X';
}

std::string slurm_job() {
  const std::string id = environment("SLURM_JOB_ID");
  const std::string cluster = environment("SLURM_CLUSTER_NAME");
  return id.empty() || cluster.empty() ? id : cluster + "/" + id;
}

}  // namespace

LeaseHolder this_holder(std::uint64_t nonce) {
  LeaseHolder holder;
  holder.nonce = nonce;
  holder.user = user_name();
  holder.host = host_name();
  holder.boot = first_line("/proc/sys/kernel/random/boot_id");
  std::error_code error;
  holder.processes = std::filesystem::read_symlink("/proc/self/ns/pid", error).string();
  holder.process = ::getpid();
  holder.process_start = state_of(holder.process).value_or(ProcessState{}).start;
  holder.job = slurm_job();
  holder.restarts = std::strtoull(environment("SLURM_RESTART_COUNT").c_str(), nullptr, 10);
  holder.since = utc_now();
  return holder;
}

std::string beat_line(std::uint64_t beats) { return fmt::format("{:020}\n", beats); }

std::string lease_text(const LeaseHolder& holder, std::uint64_t beats) {
  const Json json{{"nonce", to_hex(holder.nonce)},
                  {"user", holder.user},
                  {"host", holder.host},
                  {"boot", holder.boot},
                  {"processes", holder.processes},
                  {"process", holder.process},
                  {"process_start", holder.process_start},
                  {"job", holder.job},
                  {"restarts", holder.restarts},
                  {"since", holder.since}};
  return beat_line(beats) + json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

LeaseHolder holder_of(const std::string& text) {
  const std::string body = text.size() < kBeatBytes ? text : text.substr(kBeatBytes);
  LeaseHolder holder;
  try {
    const Json json = Json::parse(body);
    holder.nonce = std::stoull(json.at("nonce").get<std::string>(), nullptr, 16);
    holder.user = json.at("user");
    holder.host = json.at("host");
    holder.boot = json.at("boot");
    holder.processes = json.at("processes");
    holder.process = json.at("process");
    holder.process_start = json.at("process_start");
    holder.job = json.at("job");
    holder.restarts = json.at("restarts");
    holder.since = json.at("since");
  } catch (const std::exception&) {
    holder = {};
    holder.nonce = digest_of(body);
  }
  return holder;
}

Life judge_life(const LeaseHolder& holder, const LeaseHolder& mine) {
  if (!holder.job.empty() && holder.job == mine.job && holder.restarts < mine.restarts) {
    return Life::dead;
  }
  // One kernel, and one numbering of processes: names of hosts say less, as containers have their
  // own.
  const bool here =
      !mine.boot.empty() && holder.boot == mine.boot && holder.processes == mine.processes;
  if (!here) return Life::unknown;
  return is_alive(holder) ? Life::alive : Life::dead;
}

std::string describe(const LeaseHolder& holder) {
  if (holder.process == 0) return "somebody who did not say who it is";
  return fmt::format("{} on {} (process {}{}), since {} by its clock", holder.user, holder.host,
                     holder.process, holder.job.empty() ? "" : ", job " + holder.job, holder.since);
}

}  // namespace cairn::detail
