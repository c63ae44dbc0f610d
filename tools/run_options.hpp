#pragma once

#include <filesystem>
#include <string>

#include "cairn/comm.hpp"
#include "verbs.hpp"

namespace CLI {
class App;
}

namespace cairn::tool {

/// A verb with the flag --json, whose help ends with `footer`; `json` must outlive `app`.
CLI::App* add_verb(CLI::App& app, const char* name, const char* what, const std::string& footer,
                   bool& json);

/// The verbs that look after runs: ls, prune, pin, unpin and begin.
struct RunVerbs {
  CLI::App* ls = nullptr;
  CLI::App* prune = nullptr;
  CLI::App* pin = nullptr;
  CLI::App* unpin = nullptr;
  CLI::App* begin = nullptr;
  LsOptions listing;
  PruneOptions pruning;
  PinOptions pinning;
  BeginOptions beginning;
};
/// Makes them known to the command line; `verbs` and `json` must outlive `app`.
void add_run_verbs(CLI::App& app, RunVerbs& verbs, bool& json);

/// The policy that the command line gives. Errors: usage, when a rule lacks what it needs.
RetentionPolicy policy_of(const KeepOptions& keep);
/// The run's directory. Errors: not_found, usage (a file).
std::filesystem::path run_directory(const std::string& run);
/// The texts with `separator` between them.
std::string joined(const std::vector<std::string>& texts, std::string_view separator);

}  // namespace cairn::tool
