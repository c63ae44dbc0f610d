#include "trainer/slurm.hpp"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <utility>
#include <vector>

#include "base/text.hpp"
#include "os/child.hpp"

namespace cairn::detail {
namespace {

constexpr std::chrono::seconds kPatience{10};

std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || error != std::errc{} || stop != end || !(value >= 0)) return std::nullopt;
  return value;
}

/// The job as squeue tells it from others: the number of the last task of an array is also that of
/// the whole array.
std::optional<std::string> job_of(const SlurmAccess& access) {
  const auto array = access.environment("SLURM_ARRAY_JOB_ID");
  const auto task = access.environment("SLURM_ARRAY_TASK_ID");
  if (array && task) return *array + "_" + *task;
  return access.environment("SLURM_JOB_ID");
}

}  // namespace

std::optional<double> parse_slurm_time(std::string_view text) {
  text = trimmed(text);
  double days = 0;
  bool with_hours = false;
  if (const auto dash = text.find('-'); dash != std::string_view::npos) {
    const auto number = parse_number(text.substr(0, dash));
    if (!number) return std::nullopt;
    days = *number;
    with_hours = true;
    text.remove_prefix(dash + 1);
  }
  std::vector<double> parts;
  for (;;) {
    const auto colon = text.find(':');
    const auto number = parse_number(text.substr(0, colon));
    if (!number) return std::nullopt;
    parts.push_back(*number);
    if (colon == std::string_view::npos) break;
    text.remove_prefix(colon + 1);
  }
  if (parts.size() > 3 || (with_hours && parts.size() != 3)) return std::nullopt;
  double seconds = 0;
  for (const double part : parts) seconds = seconds * 60 + part;
  return days * 86400 + seconds;
}

SlurmAccess slurm_access(std::function<bool()> given_up) {
  SlurmAccess access;
  access.environment = [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) return std::nullopt;
    return value;
  };
  access.time_left = [given_up = std::move(given_up)](const std::string& job) {
    return output_of({"squeue", "-h", "-j", job, "-o", "%L"}, kPatience, given_up);
  };
  access.unix_time = [] {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch())
        .count();
  };
  return access;
}

SlurmAnswer ask_slurm(const SlurmAccess& access) {
  if (const auto end = access.environment("SLURM_JOB_END_TIME")) {
    if (const auto seconds = parse_number(*end); seconds && *seconds > 0) {
      return {*seconds - access.unix_time(), {}};
    }
  }
  return ask_squeue(access);
}

SlurmAnswer ask_squeue(const SlurmAccess& access) {
  const auto job = job_of(access);
  if (!job) return {};
  const auto answer = access.time_left(*job);
  // What squeue prints for a time below zero: a job may run on for a while after its limit.
  if (answer && trimmed(*answer) == "INVALID") return {0.0, {}};
  const auto left = answer ? parse_slurm_time(*answer) : std::nullopt;
  if (left || (answer && trimmed(*answer) == "UNLIMITED")) return {left, {}};
  return {
      std::nullopt,
      fmt::format("Slurm's job {} runs here, but squeue {}: when its time is over is not known; "
                  "set save.preemption.time_limit to save before that",
                  *job, answer ? fmt::format("says '{}'", trimmed(*answer)) : "gave no answer")};
}

}  // namespace cairn::detail
