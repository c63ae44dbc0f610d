#include "run_options.hpp"

#include <CLI/CLI.hpp>
#include <system_error>

#include "base/throw.hpp"
#include "sources/local.hpp"

namespace cairn::tool {
namespace {

constexpr const char* kFooter =
    "Whatever the rules say, these stay: the newest checkpoint, the one that 'last' links to, "
    "pinned\n"
    "ones, the last verified one (cairn verify --mark), and what a checkpoint that stays needs.\n"
    "Files that are no committed checkpoints of cairn's are never touched.\n"
    "Exit codes: 0 fine, 2 usage or error.";

constexpr const char* kBeginFooter =
    "To be called before the trainer starts; a start that has a name in $CAIRN_START is counted\n"
    "once, here or by the trainer. The count lies in RUN/.restarts; remove it to start anew.\n"
    "Exit codes: 0 start it, 1 it was started too often without progress, 2 usage or error.";

/// An option that counts something. CLI11 makes 2^64 - 1 of -1.
CLI::Option* add_count(CLI::App& verb, const char* name, auto& value, const char* what) {
  return verb.add_option(name, value, what)
      ->check(
          [](const std::string& text) {
            return std::string(text.starts_with('-') ? "a negative number is not allowed" : "");
          },
          "");
}

void add_keep_options(CLI::App& verb, KeepOptions& keep) {
  add_count(verb, "--keep-last", keep.policy.keep_last, "The most recently committed N stay");
  add_count(verb, "--keep-every", keep.policy.keep_every_n_steps,
            "So do those whose step is a multiple of N");
  auto* best =
      add_count(verb, "--keep-best", keep.policy.keep_best.k, "So do the best N by a metric");
  auto* metric = verb.add_option("--metric", keep.policy.keep_best.metric, "The metric's name");
  auto* mode = verb.add_option("--mode", keep.mode, "Which values are better: min (default) or max")
                   ->check(CLI::IsMember({"min", "max"}));
  best->needs(metric);
  metric->needs(best);
  mode->needs(best);
}

}  // namespace

CLI::App* add_verb(CLI::App& app, const char* name, const char* what, const std::string& footer,
                   bool& json) {
  CLI::App* verb = app.add_subcommand(name, what);
  verb->add_flag("--json", json, "Print JSON, errors included");
  verb->footer(footer);
  return verb;
}

void add_run_verbs(CLI::App& app, RunVerbs& verbs, bool& json) {
  verbs.ls = add_verb(app, "ls", "List the checkpoints of a run", kFooter, json);
  verbs.ls->add_option("RUN", verbs.listing.run, "Directory")->required();
  add_keep_options(*verbs.ls, verbs.listing.keep);
  verbs.prune = add_verb(app, "prune", "Remove old checkpoints of a run", kFooter, json);
  verbs.prune->add_option("RUN", verbs.pruning.run, "Directory")->required();
  add_keep_options(*verbs.prune, verbs.pruning.keep);
  verbs.prune->add_flag("--bad", verbs.pruning.bad, "Also remove those that are marked as bad");
  verbs.prune->add_flag("--partial", verbs.pruning.partial,
                        "Also remove what saves left that died, if no job uses the run");
  verbs.prune->add_flag("--dry-run", verbs.pruning.dry_run, "Only tell what would be removed");
  verbs.pin =
      add_verb(app, "pin", "Keep a checkpoint, whatever a retention policy says", kFooter, json);
  verbs.unpin = add_verb(app, "unpin", "Take the pin of a checkpoint away", kFooter, json);
  for (CLI::App* verb : {verbs.pin, verbs.unpin}) {
    verb->add_option("FILE", verbs.pinning.file, "Checkpoint, or a run's directory: its newest one")
        ->required();
  }
  verbs.begin =
      add_verb(app, "begin", "Count a start of a run, for a job's script", kBeginFooter, json);
  verbs.begin->add_option("RUN", verbs.beginning.run, "Directory")->required();
  add_count(*verbs.begin, "--max-restarts", verbs.beginning.max_restarts,
            "How often in a row it may start again without progress (default: 5; 0: any number)");
}

RetentionPolicy policy_of(const KeepOptions& keep) {
  RetentionPolicy policy = keep.policy;
  policy.keep_best.mode = keep.mode == "max" ? MetricOrder::max : MetricOrder::min;
  const bool more = policy.keep_every_n_steps != 0 || policy.keep_best.k != 0;
  if (policy.keep_last == 0 && more) {
    detail::fail(
        Errc::usage,
        "--keep-every and --keep-best add to --keep-last, which must be 1 or more: without "
        "it all checkpoints stay");
  }
  return policy;
}

std::filesystem::path run_directory(const std::string& run) {
  const std::filesystem::path dir = detail::expand_home(run);
  std::error_code error;
  if (std::filesystem::is_directory(dir, error)) return dir;
  if (std::filesystem::exists(dir, error)) {
    detail::fail(Errc::usage, "'{}' is a file; name the directory of a run", dir.string());
  }
  detail::fail(Errc::not_found, "there is no directory '{}'", dir.string());
}

std::string joined(const std::vector<std::string>& texts, std::string_view separator) {
  return fmt::format("{}", fmt::join(texts, separator));
}

}  // namespace cairn::tool
