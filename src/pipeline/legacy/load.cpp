#include <fmt/format.h>

#include "pipeline/legacy/plan.hpp"
#include "pipeline/legacy/references.hpp"

namespace cairn::detail::legacy {
namespace {

constexpr const char* kRun = "training.run_id";
constexpr const char* kFork = "training.fork_run_id";
constexpr const char* kWeights = "training.load_weights_only";
constexpr const char* kTransfer = "training.transfer_learning";
constexpr const char* kDir = "hardware.paths.warm_start";
constexpr const char* kFile = "hardware.files.warm_start";
constexpr const char* kPath = "system.input.warm_start";

/// What the legacy keys say, before the truth table gives it a meaning.
struct Facts {
  std::string run;
  std::string fork;
  std::string file;      ///< an explicit file, whole
  std::string file_key;  ///< the key that it came from
  std::string in_run;    ///< E0: a file's name below the run's folder
  bool weights = false;
  bool transfer = false;

  bool any() const { return !run.empty() || !fork.empty() || !file.empty(); }
  /// The run whose checkpoint is read, unless a file is given.
  const std::string& from() const { return fork.empty() ? run : fork; }
};

/// E1: the directory joined with the file; both or none.
void read_joined(Reader& reader, Facts& facts) {
  const std::string dir = reader.text(kDir);
  const std::string file = reader.text(kFile);
  if (dir.empty() && file.empty()) return;
  if (dir.empty() || file.empty()) {
    const char* has = dir.empty() ? kFile : kDir;
    reader.error("warm-start-incomplete", {has},
                 fmt::format("needs '{}' beside it (releases 0.6 and 0.7 joined the two); for a "
                             "file written for 0.5 or before, give --from-version 0.5",
                             dir.empty() ? kDir : kFile));
    return;
  }
  // What the file's name begins with may only be known later; then a path is taken as a whole one.
  const std::string known = reader.resolved(kFile);
  if (begins_unknown(known)) {
    const bool whole = known.find('/', known.rfind('}')) != std::string::npos;
    reader.warn("unresolved-join", {kFile},
                fmt::format("begins with a value that this file does not tell: taken as {}",
                            whole ? "a whole path" : "a name below hardware.paths.warm_start"));
    facts.file = whole ? file : join(dir, file);
  } else {
    facts.file = known.starts_with('/') ? file : join(dir, file);
  }
  facts.file_key = kFile;
}

/// E0: a name below the folder of the run, and nothing without one.
void read_in_run(Reader& reader, Facts& facts, bool told) {
  const std::string file = reader.text(kFile);
  if (file.empty()) return;
  if (facts.run.empty() && facts.fork.empty()) {
    if (!told) {
      reader.error("warm-start-incomplete", {kFile},
                   "has neither hardware.paths.warm_start (0.6, 0.7) nor a run's id (0.5 and "
                   "before) beside it; for a file written for 0.5, where it was ignored, give "
                   "--from-version 0.5");
      return;
    }
    reader.warn("warm-start-ignored-without-id", {kFile},
                "had no effect in releases up to 0.5 without run_id or fork_run_id, and is left "
                "out: nothing is loaded");
    return;
  }
  if (reader.resolved(kFile).starts_with('/')) {
    facts.file = file;
    facts.file_key = kFile;
  } else {
    facts.in_run = file;
  }
}

std::string checkpoint_root(const Plan& plan) {
  return plan.save.contains("root") ? plan.save["root"].get<std::string>() : "";
}

void plan_source(Reader& reader, Plan& plan, const Facts& facts) {
  auto& why = plan.comments["checkpoint.source"];
  const std::string root = checkpoint_root(plan);
  if (!facts.file.empty()) {
    plan.source = {{"type", "local"}, {"path", facts.file}};
    plan.source_path = facts.file;
    why.push_back(fmt::format("was {}", facts.file_key));
    return;
  }
  const bool fork = !facts.fork.empty() && facts.fork != facts.run;
  const std::string key = facts.fork.empty() ? kRun : kFork;
  if (!facts.in_run.empty() && !root.empty()) {
    plan.source_path = join(join(root, facts.from()), facts.in_run);
    plan.source = {{"type", "local"}, {"path", plan.source_path}};
    why.push_back(fmt::format("was {}, a name below the folder of {}", kFile, key));
    reader.move(kFile, "checkpoint.source.path", "a file in the run's folder");
    return;
  }
  plan.source = {{"type", "run"}};
  if (!root.empty()) plan.source["root"] = root;
  plan.source["run_id"] = facts.from();
  plan.source["fork"] = fork;
  if (!facts.in_run.empty()) {
    plan.source["file"] = facts.in_run;
    reader.move(kFile, "checkpoint.source.file", "a file in the run's folder");
  }
  if (!root.empty()) plan.source_path = join(join(root, facts.from()), "last.ckpt");
  why.push_back(fmt::format(
      "was {}: {}", key,
      fork ? "begins at that run's last checkpoint" : "goes on from the run's last checkpoint"));
}

void plan_lineage(Reader& reader, Plan& plan, const Facts& facts) {
  const bool same = facts.run == facts.fork && !facts.run.empty();
  const bool fork = !facts.fork.empty() && !same;
  auto& why = plan.comments["checkpoint.lineage"];
  if (!facts.run.empty()) {
    plan.lineage["resume_run_id"] = facts.run;
    why.push_back(fmt::format("was {}: the run keeps this id", kRun));
  }
  if (fork) {
    plan.lineage["parent_run_id"] = facts.fork;
    why.push_back(fmt::format("was {}: the run that this one comes from", kFork));
  }
  if (same) {
    reader.warn("fork-equals-run", {kFork, kRun},
                "is the run itself: the run goes on in place, as before");
  } else if (fork && !facts.run.empty()) {
    reader.warn("run-prepared-externally", {kRun, kFork},
                "is the id of a run that was prepared elsewhere: it keeps that id, and begins at "
                "training.fork_run_id");
  }
  if (!facts.file.empty() && !facts.run.empty()) {
    reader.warn("explicit-file-wins", {kRun, facts.file_key},
                fmt::format("only says who the run is: the file of {} is loaded, as before",
                            facts.file_key));
  }
}

void plan_loading(Plan& plan, const Facts& facts) {
  auto& why = plan.comments["checkpoint.loading"];
  if (!facts.weights) {
    plan.loading = {{"type", "warm_start"}};
    why.push_back(
        fmt::format("without {} everything is restored, optimizer and progress too", kWeights));
    return;
  }
  plan.reset_progress = true;
  plan.loading["type"] = facts.transfer ? "transfer_learning" : "weights_only";
  plan.loading["strict"] = false;
  if (facts.transfer) plan.loading["skip_mismatched"] = true;
  plan.loading["reset_progress"] = true;
  why.push_back(facts.transfer
                    ? fmt::format("was {} with {}: the weights that fit", kWeights, kTransfer)
                    : fmt::format("was {}: weights alone", kWeights));
  why.emplace_back("strict was false, epoch and step began at 0");
}

void tell_moves(Reader& reader, const Plan& plan, const Facts& facts) {
  const bool run_source = plan.source.is_object() && plan.source["type"] == "run";
  const bool fork_is_read = run_source && !facts.fork.empty();
  if (!facts.run.empty()) {
    reader.move(kRun,
                run_source && !fork_is_read
                    ? "checkpoint.source.run_id, checkpoint.lineage.resume_run_id"
                    : "checkpoint.lineage.resume_run_id",
                "the run keeps its id");
  }
  if (!facts.fork.empty()) {
    const bool parent = plan.lineage.contains("parent_run_id");
    reader.move(kFork,
                fmt::format("{}{}{}", fork_is_read ? "checkpoint.source.run_id" : "",
                            fork_is_read && parent ? ", " : "",
                            parent ? "checkpoint.lineage.parent_run_id" : ""),
                "the run that is begun at");
  }
  if (!facts.file.empty()) {
    if (facts.file_key == kFile) {
      reader.move(kDir, "checkpoint.source.path", "joined with hardware.files.warm_start");
    }
    reader.move(facts.file_key, "checkpoint.source.path", "the file that is read");
  }
  if (facts.weights) {
    reader.move(kWeights, "checkpoint.loading", "weights alone, epoch and step from 0");
    if (facts.transfer) reader.move(kTransfer, "checkpoint.loading.type", "the weights that fit");
  }
}

/// A value that is still to be given decides what is loaded: there is nothing to migrate to yet.
void refuse_missing(Reader& reader) {
  for (const char* key : {kRun, kFork, kDir, kFile, kPath}) {
    const Value* value = reader.find(key);
    if (value != nullptr && value->type == Value::Type::scalar && value->text == "\?\?\?") {
      reader.error("missing-value", {key}, "is '\?\?\?': give it a value, or null, first");
    }
  }
}

}  // namespace

void plan_load(Reader& reader, Plan& plan) {
  refuse_missing(reader);
  Facts facts;
  facts.run = reader.text(kRun);
  facts.fork = reader.text(kFork);
  facts.weights = reader.flag(kWeights);
  facts.transfer = reader.flag(kTransfer);
  if (plan.version.era == Era::e0) {
    read_in_run(reader, facts, plan.version.told);
  } else if (plan.version.era == Era::e1) {
    read_joined(reader, facts);
  } else {
    facts.file = reader.text(kPath);
    facts.file_key = kPath;
  }
  if (!plan.errors.empty()) return;
  if (facts.transfer && !facts.weights) {
    reader.warn("transfer-learning-ignored", {kTransfer},
                fmt::format("had no effect without {}, and is left out", kWeights));
    plan.left_out.push_back(
        fmt::format("{}: true is left out: it had no effect without {}", kTransfer, kWeights));
    reader.move(kTransfer, "", "had no effect without load_weights_only");
  }
  if (!facts.any()) {
    if (facts.weights) {
      reader.error("weights-only-without-source", {kWeights},
                   "is true and nothing says where the weights come from: set training.run_id, "
                   "training.fork_run_id or a warm_start file, or make it false for a fresh run");
    }
    if (!reader.text(kFile).empty()) {
      plan.left_out.push_back(
          fmt::format("{} is left out: it had no effect without a run's id", kFile));
      reader.move(kFile, "", "had no effect without a run's id");
    }
    return;
  }
  plan_source(reader, plan, facts);
  plan_lineage(reader, plan, facts);
  plan_loading(plan, facts);
  tell_moves(reader, plan, facts);
}

}  // namespace cairn::detail::legacy
