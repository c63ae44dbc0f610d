#include <algorithm>

#include "pipeline/block.hpp"
#include "pipeline/document.hpp"
#include "pipeline/words.hpp"

namespace cairn::detail {
namespace {

AsyncOptions async_of(const Block& block) {
  AsyncOptions async;
  block.take("budget_bytes", async.budget_bytes);
  block.take("when_busy", async.when_busy, kBusyWords);
  block.take("on_failure", async.on_failure, kFailureWords);
  return async;
}

SaveTrigger trigger_of(const Block& block) {
  SaveTrigger trigger;
  block.take("unit", trigger.unit, kUnitWords);
  block.take("save_frequency", trigger.save_frequency);
  block.take("num_models_saved", trigger.num_models_saved);
  return trigger;
}

/// When the unit saves: the member of `save` for it.
double frequency_of(SaveUnit unit, const SaveConfig& save) {
  if (unit == SaveUnit::train_steps) return static_cast<double>(save.every_n_steps);
  return unit == SaveUnit::epochs ? static_cast<double>(save.every_n_epochs) : save.every_minutes;
}

constexpr std::string_view key_of(SaveUnit unit) {
  if (unit == SaveUnit::train_steps) return "every_n_steps";
  return unit == SaveUnit::epochs ? "every_n_epochs" : "every_minutes";
}

/// How many checkpoints stay by the word of a trigger that alone saves from time to time; 0: there
/// is no such word.
std::uint64_t kept_by_trigger(const SaveConfig& save) {
  if (save.triggers.size() != 1 || !save.monitor.empty()) return 0;
  const SaveTrigger& only = save.triggers.front();
  for (const auto& [word, unit] : kUnitWords) {
    if (unit != only.unit && frequency_of(unit, save) != 0) return 0;
  }
  if (only.num_models_saved < 0) return 0;
  return std::max<std::uint64_t>(1, static_cast<std::uint64_t>(only.num_models_saved));
}

/// A unit has one answer to when it saves.
void check_triggers(const Block& block, const SaveConfig& save) {
  const auto blocks = block.blocks("triggers");
  for (std::size_t i = 0; i < save.triggers.size(); ++i) {
    const auto [unit, frequency, kept] = save.triggers[i];
    const auto refuse = [&](const std::string& why) {
      blocks[i].place().at("unit").refuse(*blocks[i].find("unit"), why);
    };
    for (std::size_t j = 0; j < i; ++j) {
      if (save.triggers[j].unit != unit) continue;
      refuse(fmt::format("has another trigger, save.triggers[{}]; give a unit one", j));
    }
    const double given = frequency_of(unit, save);
    if (given == 0 || given == static_cast<double>(frequency)) continue;
    refuse(fmt::format("is to save every {}, but save.{} says {}; give one of them", frequency,
                       key_of(unit), given));
  }
}

void take_triggers(const Block& block, SaveConfig& save) {
  block.take("enabled", save.enabled);
  block.take("every_n_steps", save.every_n_steps);
  block.take("every_n_epochs", save.every_n_epochs);
  block.take("every_minutes", save.every_minutes);
  block.take("monitor", save.monitor);
  block.take("mode", save.mode, kOrderWords);
  block.take("save_top_k", save.save_top_k);
  for (const Block& trigger : block.blocks("triggers")) {
    save.triggers.push_back(trigger_of(trigger));
  }
  check_triggers(block, save);
}

PreemptionConfig preemption_of(const Block& block) {
  PreemptionConfig preemption;
  block.take("signals", preemption.signals);
  for (const auto& [key, seconds] :
       {std::pair{"time_limit", &preemption.time_limit_s}, std::pair{"lead", &preemption.lead_s},
        std::pair{"grace", &preemption.grace_s}}) {
    if (block.find(key) != nullptr) block.take(key, seconds->emplace());
  }
  return preemption;
}

void take_retention(const Block& block, SaveConfig& save) {
  RetentionPolicy& retention = save.retention;
  block.take("keep_last", retention.keep_last);
  block.take("keep_every_n_steps", retention.keep_every_n_steps);
  if (const Block best = block.block("keep_best")) {
    best.take("k", retention.keep_best.k);
    best.take("metric", retention.keep_best.metric);
    best.take("mode", retention.keep_best.mode, kOrderWords);
  }
  if (retention.keep_last != 0 || kept_by_trigger(save) != 0) return;
  for (const std::string_view key : {"keep_every_n_steps", "keep_best"}) {
    const Value* value = block.find(key);
    if (value == nullptr || (key == "keep_every_n_steps" && retention.keep_every_n_steps == 0)) {
      continue;
    }
    block.place().at(key).refuse(
        *value, "needs save.keep_last, from 1: without it all checkpoints stay anyway");
  }
}

MpioOptions mpio_of(const Block& block) {
  MpioOptions mpio;
  block.take("hints", mpio.hints);
  block.take("component", mpio.component, kComponentWords);
  block.take("deflate", mpio.deflate);
  block.take("shuffle", mpio.shuffle);
  if (block.find("watchdog") != nullptr) block.take("watchdog", mpio.watchdog.emplace());
  return mpio;
}

/// What the first save would refuse: a job is not to find that out after hours.
void check_engine(const Block& block, const SaveConfig& save) {
  const auto refuse = [](const Block& in, std::string_view key, const std::string& why) {
    in.place().at(key).refuse(*in.find(key), why);
  };
  if (save.async && save.engine != EngineKind::direct) {
    refuse(block, "async",
           fmt::format("needs 'engine: direct': {} does not save in the background",
                       to_string(save.engine)));
  }
  if (save.mpio.deflate != 0 && save.engine != EngineKind::mpio) {
    refuse(block.block("mpio"), "deflate",
           "needs 'engine: mpio': no other engine compresses; 0 switches it off");
  }
  if (save.async && save.async->budget_bytes != 0 &&
      save.async->budget_bytes < AsyncOptions::kLeastBudgetBytes) {
    refuse(block.block("async"), "budget_bytes",
           fmt::format("must be at least {}, or 0 for what fits", AsyncOptions::kLeastBudgetBytes));
  }
}

}  // namespace

void settle_triggers(SaveConfig& save) {
  if (!save.enabled) {
    save.every_n_steps = 0;
    save.every_n_epochs = 0;
    save.every_minutes = 0;
    save.monitor.clear();
    save.triggers.clear();
  }
  for (const auto& [unit, frequency, kept] : save.triggers) {
    if (unit == SaveUnit::train_steps) save.every_n_steps = frequency;
    if (unit == SaveUnit::epochs) save.every_n_epochs = frequency;
    if (unit == SaveUnit::minutes) save.every_minutes = static_cast<double>(frequency);
  }
  if (save.retention.keep_last == 0) save.retention.keep_last = kept_by_trigger(save);
}

std::vector<std::string> idle_keys(const SaveConfig& save) {
  std::vector<std::string> idle;
  const bool numbers =
      std::any_of(save.triggers.begin(), save.triggers.end(),
                  [](const SaveTrigger& trigger) { return trigger.num_models_saved >= 0; });
  if (numbers && save.retention.keep_last == 0) {
    idle.emplace_back(
        "save.triggers[].num_models_saved is not obeyed where more than one thing says when to "
        "save, and all checkpoints stay; save.keep_last limits their number");
  }
  if (!save.name_templates.empty()) {
    idle.emplace_back(
        "save.name_templates is not obeyed so far: checkpoints are called by their step");
  }
  return idle;
}

void take_save(const Block& block, SaveConfig& save) {
  block.take("dir", save.dir);
  block.take("root", save.root);
  take_triggers(block, save);
  if (const Block preemption = block.block("preemption")) {
    save.preemption = preemption_of(preemption);
  }
  take_retention(block, save);
  block.take("lease", save.lease);
  block.take("max_restarts", save.max_restarts);
  for (const auto& [word, unit] : kUnitWords) {
    const Block templates = block.block("name_templates");
    if (templates.find(word) != nullptr) templates.take(word, save.name_templates[unit]);
  }
  block.take("engine", save.engine, kEngineWords);
  block.take("transfer", save.transfer, kTransferWords);
  if (const Block mpio = block.block("mpio")) save.mpio = mpio_of(mpio);
  block.take("durable", save.durable);
  block.take("statistics", save.statistics);
  block.take("replica_check", save.replica_check, kReplicaWords);
  block.take("delta", save.delta);
  if (const Block async = block.block("async")) {
    save.async = async_of(async);
  } else {
    bool wanted = false;
    block.take("async", wanted);
    if (wanted) save.async = AsyncOptions{};
  }
  check_engine(block, save);
}

}  // namespace cairn::detail
