#include "pipeline/block.hpp"

namespace cairn::detail {
namespace {

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

}  // namespace

void take_save(const Block& block, SaveConfig& save) {
  constexpr std::array<std::pair<std::string_view, EngineKind>, 2> kEngines{
      {{"direct", EngineKind::direct}, {"mpio", EngineKind::mpio}}};
  constexpr std::array<std::pair<std::string_view, Transfer>, 2> kTransfers{
      {{"collective", Transfer::collective}, {"independent", Transfer::independent}}};
  constexpr std::array<std::pair<std::string_view, ReplicaCheck>, 3> kChecks{
      {{"off", ReplicaCheck::off}, {"sample", ReplicaCheck::sample}, {"full", ReplicaCheck::full}}};
  block.take("dir", save.dir);
  block.take("every_n_steps", save.every_n_steps);
  block.take("keep_last", save.keep_last);
  block.take("engine", save.engine, kEngines);
  block.take("transfer", save.transfer, kTransfers);
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
