#include "checkpoint/convert_tree.hpp"

namespace cairn::detail {
namespace {

using Json = nlohmann::ordered_json;

/// The layout of the loops is that of all releases since, and newer ones migrate what is older.
constexpr const char* kVersion = "2.0.0";

Json counts(std::uint64_t value, bool all) {
  Json json = {{"ready", value}, {"completed", value}};
  if (all) json.update({{"started", value}, {"processed", value}});
  return json;
}

/// What happened since the beginning, and in what is going on: nothing, for it begins anew.
Json progress(std::uint64_t total, bool all = true) {
  return {{"total", counts(total, all)}, {"current", counts(0, all)}};
}

Json batches(std::uint64_t total) {
  Json json = progress(total);
  json["is_last_batch"] = false;
  return json;
}

Json fit_loop(std::uint64_t epoch, std::uint64_t step) {
  Json zeroed = progress(step, /*all=*/false);
  zeroed["total"]["started"] = step;
  zeroed["current"]["started"] = 0;
  const Json none = Json::object();
  return {{"state_dict", none},
          {"epoch_loop.state_dict", {{"_batches_that_stepped", step}}},
          {"epoch_loop.batch_progress", batches(step)},
          {"epoch_loop.scheduler_progress", progress(0, /*all=*/false)},
          {"epoch_loop.automatic_optimization.state_dict", none},
          {"epoch_loop.automatic_optimization.optim_progress",
           {{"optimizer", {{"step", progress(step, /*all=*/false)}, {"zero_grad", zeroed}}}}},
          {"epoch_loop.manual_optimization.state_dict", none},
          {"epoch_loop.manual_optimization.optim_step_progress", progress(0, /*all=*/false)},
          {"epoch_loop.val_loop.state_dict", none},
          {"epoch_loop.val_loop.batch_progress", batches(0)},
          {"epoch_progress", {{"total", counts(epoch, true)}, {"current", counts(epoch, true)}}}};
}

Json loops(std::uint64_t epoch, std::uint64_t step) {
  const Json none = Json::object();
  const Json evaluation = {{"state_dict", none}, {"batch_progress", batches(0)}};
  return {{"fit_loop", fit_loop(epoch, step)},
          {"validate_loop", evaluation},
          {"test_loop", evaluation},
          {"predict_loop", evaluation}};
}

}  // namespace

void complete_lightning(torch::Tree& tree, std::uint64_t epoch, std::uint64_t step) {
  const Json wanted = {{"epoch", epoch},
                       {"global_step", step},
                       {"pytorch-lightning_version", kVersion},
                       {"loops", loops(epoch, step)},
                       {"callbacks", Json::object()},
                       {"optimizer_states", Json::array()},
                       {"lr_schedulers", Json::array()},
                       {"hparams_name", "kwargs"},
                       {"hyper_parameters", Json::object()}};
  for (const auto& [key, value] : wanted.items()) {
    const PathKey path[] = {key};
    if (!tree.contains(path)) tree.add_value(path, value);
  }
}

}  // namespace cairn::detail
