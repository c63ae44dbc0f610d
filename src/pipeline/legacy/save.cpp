#include <fmt/format.h>

#include <array>

#include "pipeline/legacy/plan.hpp"
#include "pipeline/legacy/references.hpp"
#include "pipeline/rules.hpp"

namespace cairn::detail::legacy {
namespace {

/// A unit of time, with what the legacy system took where a file gave only one of the two numbers.
struct Unit {
  const char* name;
  const char* key;
  const char* frequency;  ///< empty: never
  const char* kept;
};
constexpr std::array kUnits{Unit{"minutes", "every_n_minutes", "30", "3"},
                            Unit{"epochs", "every_n_epochs", "1", "-1"},
                            Unit{"train_steps", "every_n_train_steps", "", "0"}};

constexpr const char* kPaths = "hardware.paths.checkpoints";
constexpr const char* kRoot = "system.output.checkpoints.root";
constexpr const char* kOutput = "system.output.root";

/// A number as one, an interpolation as text.
Json number_of(const std::string& text) {
  std::int64_t integer = 0;
  return parse_integer(text, integer) ? Json(integer) : Json(text);
}

/// E2: a relative directory lies below system.output.root.
std::string joined_root(Reader& reader, Plan& plan) {
  const std::string dir = reader.text(kRoot);
  const std::string known = reader.resolved(kRoot);
  if (known.starts_with('/') || known.starts_with('~') || known.find("://") != std::string::npos) {
    return dir;
  }
  if (begins_unknown(known)) {
    const bool whole = known.find('/') != std::string::npos;
    reader.warn("unresolved-join", {kRoot},
                fmt::format("begins with a value that this file does not tell: taken as {}",
                            whole ? "a whole path" : "a name below system.output.root"));
    if (whole) return dir;
  }
  std::string output = reader.text(kOutput);
  if (output == "\?\?\?") output = fmt::format("${{{}}}", kOutput);  // another file gives it
  if (output.empty()) {
    reader.warn("root-incomplete", {kRoot},
                "lay below system.output.root, which this file does not give: save.root must "
                "become the whole path");
  }
  plan.comments["save.root"].push_back(fmt::format("{} joined with {}", kOutput, kRoot));
  return join(output, dir);
}

void plan_root(Reader& reader, Plan& plan) {
  const bool old = plan.version.era == Era::e0 || plan.version.era == Era::e1;
  const char* key = old ? kPaths : kRoot;
  if (!reader.says(key)) return;
  const std::string root = old ? reader.text(kPaths) : joined_root(reader, plan);
  plan.save["root"] = root;
  auto& why = plan.comments["save.root"];
  if (why.empty()) why.push_back(fmt::format("was {}", key));
  why.push_back("each run has its folder in it");
  reader.move(key, "save.root", "the directory of all runs");
}

void plan_trigger(Reader& reader, Plan& plan, const Unit& unit) {
  const std::string key = fmt::format("diagnostics.checkpoint.{}", unit.key);
  const std::string every_key = key + ".save_frequency";
  const std::string kept_key = key + ".num_models_saved";
  const Value* every_value = reader.find(every_key);
  const Value* kept_value = reader.find(kept_key);
  if (every_value == nullptr && kept_value == nullptr) return;
  std::string every = reader.text(every_key);
  std::string kept = reader.text(kept_key);
  if (every_value == nullptr) every = unit.frequency;
  if (every.empty() || every == "0") return;  // it never fired
  if (every == "\?\?\?" || kept == "\?\?\?") return;
  if (every_value == nullptr || kept.empty()) {
    if (kept.empty()) kept = unit.kept;
    reader.warn("partial-trigger", {every_value == nullptr ? kept_key : every_key},
                fmt::format("stands alone: the other number is the legacy default ({} and {})",
                            every, kept));
  }
  plan.save["triggers"].push_back({{"unit", unit.name},
                                   {"save_frequency", number_of(every)},
                                   {"num_models_saved", number_of(kept)}});
  plan.comments["save.triggers"] = {"was diagnostics.checkpoint"};
  reader.move(every_key, "save.triggers", "when to save");
  reader.move(kept_key, "save.triggers", "how many stay");
}

/// The callback that stopped at a limit and left a note for the next job stays, as all callbacks
/// do; cairn saves before the end of a job by its own means.
void tell_of_time_limit(Reader& reader) {
  constexpr const char* kCallbacks = "diagnostics.callbacks";
  const Value* callbacks = reader.find(kCallbacks);
  if (callbacks == nullptr) return;
  for (const Value& callback : callbacks->items) {
    const Value* target = callback.find("_target_");
    if (target == nullptr || !target->text.ends_with(".TimeLimit")) continue;
    reader.warn(
        "time-limit-stays", {kCallbacks},
        "has a TimeLimit, which cairn does not act on: save.preemption saves before a job's "
        "end, and the scripts of jobs/ go on with the next one (docs/slurm.md)");
    return;
  }
}

}  // namespace

void plan_save(Reader& reader, Plan& plan) {
  tell_of_time_limit(reader);
  plan_root(reader, plan);
  constexpr const char* kEnabled = "diagnostics.enable_checkpointing";
  if (reader.says(kEnabled)) {
    const std::string text = reader.text(kEnabled);
    bool flag = false;
    plan.save["enabled"] = parse_legacy_flag(text, flag) ? Json(flag) : Json(text);
    plan.comments["save.enabled"] = {fmt::format("was {}", kEnabled)};
    reader.move(kEnabled, "save.enabled", "whether checkpoints are made");
  }
  for (const Unit& unit : kUnits) plan_trigger(reader, plan, unit);
  const bool old = plan.version.era == Era::e0 || plan.version.era == Era::e1;
  const std::string templates = old ? "hardware.files.checkpoint" : "system.output.checkpoints";
  for (const Unit& unit : kUnits) {
    const std::string key = fmt::format("{}.{}", templates, unit.key);
    if (!reader.says(key)) continue;
    plan.save["name_templates"][unit.name] = reader.text(key);
    plan.comments["save.name_templates"] = {fmt::format("was {}", templates)};
    reader.move(key, fmt::format("save.name_templates.{}", unit.name), "how checkpoints are named");
  }
}

}  // namespace cairn::detail::legacy
