#include <algorithm>
#include <initializer_list>

#include "checkpoint/convert_tree.hpp"
#include "formats/torch/values.hpp"
#include "manifest/documents.hpp"

namespace cairn::detail {
namespace {

using Json = nlohmann::ordered_json;
using Path = std::vector<PathKey>;

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

/// Whether the groups of an optimizer have their parameters' names in place of numbers.
bool has_names(const Json& optimizer) {
  const Json groups = optimizer.value("param_groups", Json());
  return groups.is_array() && std::any_of(groups.begin(), groups.end(), [](const Json& group) {
           const Json params = group.is_object() ? group.value("params", Json()) : Json();
           return params.is_array() && !params.empty() && params.front().is_string();
         });
}

}  // namespace

std::vector<std::pair<Path, Path>> lightning_moves(
    const std::string& format, const std::map<std::string, std::string>& documents,
    std::vector<LeftOut>& left_out) {
  const Json training = document_of(documents, "training");
  std::vector<std::pair<Path, Path>> moves;
  const bool own = training.is_object() && training.value("kind", "") == "lightning";
  if (own && format != "dcp") return moves;  // of a distributed one, the keys are others
  const Json roles = document_of(documents, "roles");
  if (roles.contains("model")) {
    moves.emplace_back(torch::path_of(roles["model"]), Path{std::string("state_dict")});
  }
  std::int64_t number = 0;
  for (const Json& optimizer : document_of(documents, "optimizers")) {
    if (has_names(optimizer)) {
      left_out.push_back({torch::name_of(torch::path_of(optimizer.at("path"))),
                          "it knows its parameters by names, and Lightning looks for numbers: it "
                          "is at its old key, "
                          "not among 'optimizer_states'"});
      continue;
    }
    moves.emplace_back(torch::path_of(optimizer.at("path")),
                       Path{std::string("optimizer_states"), number++});
  }
  for (const char* key :
       {"scheduler", "lr_scheduler", "scheduler_state_dict", "lr_scheduler_state_dict"}) {
    moves.emplace_back(Path{std::string(key)}, Path{std::string("lr_schedulers"), std::int64_t{0}});
  }
  return moves;
}

namespace {

/// The first count that is in a document, or else `otherwise`.
std::uint64_t count_of(const std::map<std::string, std::string>& documents,
                       std::initializer_list<std::pair<const char*, const char*>> places,
                       std::uint64_t otherwise) {
  for (const auto& [name, key] : places) {
    if (const auto count = progress_in(document_of(documents, name), key)) return *count;
  }
  return otherwise;
}

}  // namespace

void complete_lightning(torch::Tree& tree, const std::map<std::string, std::string>& documents,
                        std::uint64_t step_of_source) {
  const std::uint64_t epoch = count_of(documents, {{"context", "epoch"}, {"training", "epoch"}}, 0);
  const std::uint64_t step = count_of(documents,
                                      {{"context", "global_step"},
                                       {"training", "global_step"},
                                       {"deepspeed", "global_steps"},
                                       {"megatron", "iteration"},
                                       {"training", "step"},
                                       {"training", "iteration"}},
                                      step_of_source);
  // A checkpoint of Lightning's own has its arguments under these keys, or has none.
  const PathKey version[] = {std::string("pytorch-lightning_version")};
  const bool own = tree.contains(version);
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
    if (own && (key == "hparams_name" || key == "hyper_parameters")) continue;
    if (!tree.contains(path)) tree.add_value(path, value);
  }
}

}  // namespace cairn::detail
