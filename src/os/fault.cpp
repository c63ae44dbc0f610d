#include "os/fault.hpp"

#ifdef CAIRN_FAULT_POINTS

#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/throw.hpp"

namespace cairn::detail {
namespace {

std::string world_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"}) {
    if (const char* value = std::getenv(name)) return value;
  }
  return "0";
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

/// How often each rule's point was passed since CAIRN_FAULT last changed. State of the process, as
/// CAIRN_FAULT itself is.
class Passes {
 public:
  void see(const std::string& rules) {
    const std::lock_guard lock(mutex_);
    if (rules == rules_) return;
    rules_ = rules;
    passes_.clear();
  }
  int next(const std::string& rule) {
    const std::lock_guard lock(mutex_);
    return ++passes_[rule];
  }

 private:
  std::mutex mutex_;
  std::string rules_;
  std::map<std::string, int> passes_;
};

Passes& passes() {
  static Passes all;
  return all;
}

Fault act(std::string_view point, const std::string& action) {
  if (action == "kill") std::raise(SIGKILL);
  if (action == "stay") {
    for (;;) pause();
  }
  if (action == "stop") {
    std::raise(SIGSTOP);
    return Fault::none;
  }
  if (action == "error") fail(Errc::io, "injected fault at '{}'", point);
  if (action == "damage") fail(Errc::corrupt, "injected damage at '{}'", point);
  if (action == "full") return Fault::full;
  if (action == "refuse") return Fault::refused;
  if (action == "short") return Fault::short_write;
  if (action == "flip") return Fault::flip;
  if (action == "twice") return Fault::twice;
  fail(Errc::usage, "CAIRN_FAULT: unknown action '{}'", action);
}

}  // namespace

Fault fault_point(std::string_view point) {
  const char* variable = std::getenv("CAIRN_FAULT");
  const std::string rules = variable == nullptr ? "" : variable;
  passes().see(rules);
  if (rules.empty()) return Fault::none;
  for (const std::string& rule : split(rules, ',')) {
    const auto parts = split(rule, ':');
    if (parts.size() < 3) fail(Errc::usage, "CAIRN_FAULT: '{}' is not POINT:RANK:ACTION[:N]", rule);
    if (parts[0] != point || parts[1] != world_rank()) continue;
    const int wanted = parts.size() > 3 ? std::atoi(parts[3].c_str()) : 1;
    if (passes().next(rule) == wanted) return act(point, parts[2]);
  }
  return Fault::none;
}

}  // namespace cairn::detail

#endif
