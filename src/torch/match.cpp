#include "torch/match.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "torch/lora.hpp"
#include "torch/quantized.hpp"

namespace cairn::detail {
namespace {

class Matcher {
 public:
  Matcher(const Manifest& manifest, const CheckpointNames& names, const PlacementPolicy& policy)
      : manifest_(manifest), names_(names), policy_(policy) {
    match_.used.assign(manifest.tensors.size(), static_cast<std::uint64_t>(Use::none));
    const auto document = find_document(manifest, "model");
    if (!document) return;
    reading_document(manifest, "model", [&] {
      const auto aliases = document->value("aliases", Json::object()).get<Json::object_t>();
      for (const auto& [alias, of] : aliases) {
        aliases_[names.renamed(alias)] = names.renamed(of.get<std::string>());
      }
      const auto quantized = document->value("quantized", Json::object()).get<Json::object_t>();
      for (const auto& [name, record] : quantized) quantized_[names.renamed(name)] = record;
      const auto adapters = document->value("adapters", Json::object()).get<Json::object_t>();
      for (const auto& [path, record] : adapters) {
        scales_[names.renamed(path)] =
            record.at("alpha").get<double>() / record.at("rank").get<double>();
      }
    });
  }

  void add_model(const std::vector<ModelTensor>& tensors, const LoadingConfig& loading) {
    std::vector<WantedTensor> wanted;
    std::vector<std::pair<TensorMemory, Placement>> homes;
    for (const ModelTensor& item : tensors) {
      const std::string name = model_tensor_name(item.names.front());
      TensorMemory memory = memory_for_load(name, item.tensor);
      Placement placement = place(policy_, name, memory);
      wanted.push_back({item.names, placement.global_shape, item.optional});
      homes.emplace_back(std::move(memory), std::move(placement));
      match_.model_names.push_back(item.names.front());
    }
    LoadPlan plan = plan_load(manifest_, names_, aliases_, wanted, loading);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const PlannedTensor& planned = plan.tensors[i];
      if (!planned.load) continue;
      match_quantizer(tensors[i].tensor, planned.source);
      if (!tensors[i].optional) match_.model_tensors.push_back(tensors[i].tensor);
      add_target(planned.position, std::move(homes[i].first), std::move(homes[i].second));
    }
    for (std::size_t t = 0; t < plan.used.size(); ++t) {
      match_.used[t] = std::max(match_.used[t], plan.used[t]);
    }
    match_.notes = std::move(plan.notes);
  }

  /// Values that were trained with another scale mean something else.
  void compare_scales(const std::map<std::string, double>& scales) {
    for (const auto& [path, scale] : scales) {
      const auto saved = scales_.find(path);
      if (saved == scales_.end() || saved->second == scale) continue;
      match_.notes.warnings.push_back(fmt::format(
          "the adapter of '{}' was saved with a scale (alpha / rank) of {}, and is used "
          "with {}",
          path, saved->second, scale));
    }
  }

  /// For the comparison with ranks that do have one.
  void without_optimizer() {
    const auto document = optimizer_document();
    if (!document) return;
    match_.optimizer.parameters =
        reading_document(manifest_, "optimizer", [&] { return saved_parameters(*document); });
    match_.optimizer.matched.assign(match_.optimizer.parameters.size(), 0);
  }

  void add_optimizer(torch::optim::Optimizer& optimizer, const ParameterNames& names) {
    const auto document = optimizer_document();
    if (!document) {
      fail(Errc::mismatch,
           "'{}' has no optimizer's state; load the model alone, or use a checkpoint "
           "that was saved with an optimizer",
           manifest_.path().string());
    }
    match_.with_optimizer = true;
    match_.optimizer = reading_document(manifest_, "optimizer", [&] {
      if (document->contains("unusable")) {
        fail(Errc::mismatch,
             "the optimizer's state of '{}' can't be used: {}; load the model alone",
             manifest_.path().string(), document->at("unusable").get<std::string>());
      }
      return prepare_optimizer(optimizer, names, *document, [&](const std::string& name) {
        const auto position = names_.find(name);
        return position ? std::optional(manifest_.tensors.head(*position).dtype) : std::nullopt;
      });
    });
    if (!has_groups(*document)) {
      match_.notes.warnings.emplace_back(
          "the checkpoint does not tell the optimizer's options; those of the given one stay");
    }
    for (const OptimizerSlot& slot : match_.optimizer.slots) {
      TensorMemory memory = memory_for_load(slot.name, slot.tensor);
      Placement placement = place(slot.counter ? PlacementPolicy() : policy_, slot.name, memory);
      add_target(names_.find(slot.name).value(), std::move(memory), std::move(placement));
    }
  }

  Match take() { return std::move(match_); }

 private:
  /// With its parameters' names as the rename rules leave them.
  std::optional<Json> optimizer_document() const {
    auto document = find_document(manifest_, "optimizer");
    if (!document) return document;
    reading_document(manifest_, "optimizer", [&] {
      if (!has_groups(*document)) {
        auto names = saved_parameters(*document);
        for (std::string& name : names) name = names_.renamed(name);
        (*document)["parameters"] = names;
        return;
      }
      for (Json& group : document->at("param_groups")) {
        for (Json& name : group.at("params")) name = names_.renamed(name.get<std::string>());
      }
    });
    return document;
  }

  void match_quantizer(const at::Tensor& tensor, const std::string& source) {
    const std::string name = model_tensor_name(source);
    const bool recorded = quantized_.contains(source);
    if (recorded != tensor.is_quantized()) {
      fail(Errc::mismatch, "tensor '{}' is {} in '{}' but {} in memory", name,
           recorded ? "quantised" : "not quantised", manifest_.path().string(),
           c10::toString(tensor.scalar_type()));
    }
    if (!recorded) return;
    match_.quantizers[tensor.unsafeGetTensorImpl()] = reading_document(manifest_, "model", [&] {
      return quantizer_from_record(name, tensor, quantized_.at(source));
    });
  }

  void add_target(std::size_t position, TensorMemory memory, Placement placement) {
    match_.used[position] =
        std::max(match_.used[position],
                 static_cast<std::uint64_t>(use_of(manifest_.tensors[position], placement)));
    match_.targets.push_back({std::string(manifest_.tensors.head(position).name), memory.dtype,
                              std::move(placement), memory.data()});
    match_.memories.push_back(std::move(memory));
  }

  const Manifest& manifest_;
  const CheckpointNames& names_;
  const PlacementPolicy& policy_;
  std::map<std::string, std::string> aliases_;
  std::map<std::string, Json> quantized_;
  std::map<std::string, double> scales_;  ///< of the checkpoint's adapters, by path
  Match match_;
};

}  // namespace

Match match_trainer(const Manifest& manifest, const CheckpointNames& names,
                    const TrainerState& trainer, const RestoreSettings& settings,
                    const Modification& modification) {
  const ManagerOptions& options = settings.options;
  const LoadingConfig& loading = settings.loading;
  Matcher matcher(manifest, names, options.placement);
  auto tensors = model_tensors(trainer.model);
  for (ModelTensor& item : tensors) {
    item.optional = is_adapter(settings.adapters.state(), item.tensor);
  }
  tensors.insert(tensors.end(), modification.adapters.begin(), modification.adapters.end());
  matcher.add_model(tensors, loading);
  matcher.compare_scales(modification.scales);
  if (loading.type != LoadingType::warm_start) return matcher.take();
  if (trainer.optimizer == nullptr) {
    matcher.without_optimizer();
  } else {
    matcher.add_optimizer(*trainer.optimizer,
                          parameter_names(tensors, options.optimizer_parameters));
  }
  return matcher.take();
}

}  // namespace cairn::detail
