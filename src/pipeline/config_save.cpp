#include "pipeline/block.hpp"

namespace cairn::detail {
namespace {

constexpr std::array<std::pair<std::string_view, SaveUnit>, 3> kUnits{
    {{"minutes", SaveUnit::minutes},
     {"epochs", SaveUnit::epochs},
     {"train_steps", SaveUnit::train_steps}}};

AsyncOptions async_of(const Block& block) {
  constexpr std::array<std::pair<std::string_view, WhenBusy>, 3> kBusy{
      {{"wait", WhenBusy::wait}, {"skip", WhenBusy::skip}, {"queue", WhenBusy::queue}}};
  constexpr std::array<std::pair<std::string_view, OnFailure>, 3> kFailure{
      {{"fatal", OnFailure::fatal}, {"warn", OnFailure::warn}, {"retry", OnFailure::retry}}};
  AsyncOptions async;
  block.take("budget_bytes", async.budget_bytes);
  block.take("when_busy", async.when_busy, kBusy);
  block.take("on_failure", async.on_failure, kFailure);
  return async;
}

SaveTrigger trigger_of(const Block& block) {
  SaveTrigger trigger;
  block.take("unit", trigger.unit, kUnits);
  block.take("save_frequency", trigger.save_frequency);
  block.take("num_models_saved", trigger.num_models_saved);
  return trigger;
}

void add_trigger(const SaveTrigger& trigger, SaveConfig& save) {
  const std::uint64_t frequency = trigger.save_frequency;
  if (trigger.unit == SaveUnit::train_steps && save.every_n_steps == 0) {
    save.every_n_steps = frequency;
  } else if (trigger.unit == SaveUnit::epochs && save.every_n_epochs == 0) {
    save.every_n_epochs = frequency;
  } else if (trigger.unit == SaveUnit::minutes && save.every_minutes == 0) {
    save.every_minutes = static_cast<double>(frequency);
  }
}

void take_triggers(const Block& block, SaveConfig& save) {
  block.take("enabled", save.enabled);
  constexpr std::array<std::pair<std::string_view, MonitorMode>, 2> kModes{
      {{"min", MonitorMode::min}, {"max", MonitorMode::max}}};
  block.take("every_n_steps", save.every_n_steps);
  block.take("every_n_epochs", save.every_n_epochs);
  block.take("every_minutes", save.every_minutes);
  block.take("monitor", save.monitor);
  block.take("mode", save.mode, kModes);
  block.take("save_top_k", save.save_top_k);
  for (const Block& trigger : block.blocks("triggers")) {
    save.triggers.push_back(trigger_of(trigger));
  }
  if (!save.enabled) {
    save.every_n_steps = 0;
    save.every_n_epochs = 0;
    save.every_minutes = 0;
    save.monitor.clear();
    save.triggers.clear();
  }
  for (const SaveTrigger& trigger : save.triggers) add_trigger(trigger, save);
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

MpioOptions mpio_of(const Block& block) {
  constexpr std::array<std::pair<std::string_view, IoComponent>, 3> kComponents{
      {{"auto", IoComponent::automatic},
       {"ompio", IoComponent::ompio},
       {"romio", IoComponent::romio}}};
  MpioOptions mpio;
  block.take("hints", mpio.hints);
  block.take("component", mpio.component, kComponents);
  block.take("deflate", mpio.deflate);
  block.take("shuffle", mpio.shuffle);
  if (block.find("watchdog") != nullptr) block.take("watchdog", mpio.watchdog.emplace());
  return mpio;
}

}  // namespace

void take_save(const Block& block, SaveConfig& save) {
  constexpr std::array<std::pair<std::string_view, EngineKind>, 2> kEngines{
      {{"direct", EngineKind::direct}, {"mpio", EngineKind::mpio}}};
  constexpr std::array<std::pair<std::string_view, Transfer>, 2> kTransfers{
      {{"collective", Transfer::collective}, {"independent", Transfer::independent}}};
  constexpr std::array<std::pair<std::string_view, ReplicaCheck>, 3> kChecks{
      {{"off", ReplicaCheck::off}, {"sample", ReplicaCheck::sample}, {"full", ReplicaCheck::full}}};
  block.take("dir", save.dir);
  block.take("root", save.root);
  take_triggers(block, save);
  if (const Block preemption = block.block("preemption")) {
    save.preemption = preemption_of(preemption);
  }
  block.take("keep_last", save.keep_last);
  for (const auto& [word, unit] : kUnits) {
    const Block templates = block.block("name_templates");
    if (templates.find(word) != nullptr) templates.take(word, save.name_templates[unit]);
  }
  block.take("engine", save.engine, kEngines);
  block.take("transfer", save.transfer, kTransfers);
  if (const Block mpio = block.block("mpio")) save.mpio = mpio_of(mpio);
  block.take("durable", save.durable);
  block.take("statistics", save.statistics);
  block.take("replica_check", save.replica_check, kChecks);
  if (const Block async = block.block("async")) {
    save.async = async_of(async);
  } else {
    bool wanted = false;
    block.take("async", wanted);
    if (wanted) save.async = AsyncOptions{};
  }
}

}  // namespace cairn::detail
