#include "torch/match.hpp"

#include <algorithm>
#include <optional>
#include <string_view>

#include "torch/quantized.hpp"

namespace cairn::detail {
namespace {

class Matcher {
 public:
  Matcher(const Manifest& manifest, const PlacementPolicy& policy)
      : manifest_(manifest), policy_(policy), by_name_(manifest.tensors) {
    match_.used.assign(manifest.tensors.size(), Match::kUnused);
    const auto document = find_document(manifest, "model");
    if (!document) return;
    reading_document(manifest, "model", [&] {
      aliases_ = document->value("aliases", Json::object()).get<Json::object_t>();
      quantized_ = document->value("quantized", Json::object()).get<Json::object_t>();
    });
  }

  void add_model(const std::vector<ModelTensor>& tensors) {
    std::vector<std::string> missing;
    for (const ModelTensor& item : tensors) {
      if (const auto source = find_source(item)) {
        add_model_tensor(item, *source);
      } else {
        missing.push_back(model_tensor_name(item.names.front()));
      }
    }
    if (!missing.empty()) {
      fail(Errc::mismatch, "'{}' lacks {}, which the given model has; nothing was loaded",
           manifest_.path().string(), list_some(missing));
    }
  }

  /// For the comparison with ranks that do have one.
  void without_optimizer() {
    const auto document = find_document(manifest_, "optimizer");
    if (!document) return;
    match_.optimizer.parameters =
        reading_document(manifest_, "optimizer", [&] { return saved_parameters(*document); });
    match_.optimizer.matched.assign(match_.optimizer.parameters.size(), 0);
  }

  void add_optimizer(torch::optim::Optimizer& optimizer, const ParameterNames& names) {
    const auto document = find_document(manifest_, "optimizer");
    if (!document) {
      fail(Errc::mismatch,
           "'{}' has no optimizer's state; load the model alone, or use a checkpoint "
           "that was saved with an optimizer",
           manifest_.path().string());
    }
    match_.with_optimizer = true;
    match_.optimizer = reading_document(manifest_, "optimizer", [&] {
      return prepare_optimizer(optimizer, names, *document,
                               [&](const std::string& name) { return by_name_.contains(name); });
    });
    for (const OptimizerSlot& slot : match_.optimizer.slots) {
      add_target(slot.name, slot.name, memory_for_load(slot.name, slot.tensor),
                 slot.counter ? PlacementPolicy() : policy_);
    }
  }

  Match take() { return std::move(match_); }

 private:
  /// The fqn under which the checkpoint holds the tensor: one of its names, or what such a name was
  /// tied to when it was saved.
  std::optional<std::string> find_source(const ModelTensor& item) const {
    for (const std::string& fqn : item.names) {
      if (by_name_.contains(model_tensor_name(fqn))) return fqn;
    }
    return reading_document(manifest_, "model", [&]() -> std::optional<std::string> {
      for (const std::string& fqn : item.names) {
        if (!aliases_.contains(fqn)) continue;
        auto target = aliases_.at(fqn).get<std::string>();
        if (by_name_.contains(model_tensor_name(target))) return target;
      }
      return std::nullopt;
    });
  }

  void add_model_tensor(const ModelTensor& item, const std::string& source) {
    const std::string name = model_tensor_name(item.names.front());
    match_quantizer(item.tensor, source);
    add_target(name, model_tensor_name(source), memory_for_load(name, item.tensor), policy_);
    for (const std::string& fqn : item.names) {
      const auto position = by_name_.find(model_tensor_name(fqn));
      if (!position || match_.used[*position] == Match::kLoaded) continue;
      match_.used[*position] = Match::kTied;
      match_.warnings.push_back(fmt::format(
          "the model ties '{}' to '{}', but the checkpoint holds both; the values of '{}' "
          "were taken for both",
          fqn, source, source));
    }
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

  void add_target(const std::string& name, const std::string& source, TensorMemory memory,
                  const PlacementPolicy& policy) {
    match_.targets.push_back({source, memory.dtype, place(policy, name, memory), memory.data()});
    match_.used[by_name_.find(source).value()] = Match::kLoaded;
    match_.memories.push_back(std::move(memory));
  }

  const Manifest& manifest_;
  const PlacementPolicy& policy_;
  TensorNames by_name_;
  Json aliases_ = Json::object();
  Json quantized_ = Json::object();
  Match match_;
};

}  // namespace

Match match_trainer(const Manifest& manifest, const TrainerState& trainer,
                    const ManagerOptions& options) {
  Matcher matcher(manifest, options.placement);
  const auto tensors = model_tensors(trainer.model);
  matcher.add_model(tensors);
  if (trainer.optimizer == nullptr) {
    matcher.without_optimizer();
  } else {
    matcher.add_optimizer(*trainer.optimizer,
                          parameter_names(tensors, options.optimizer_parameters));
  }
  return matcher.take();
}

std::string list_some(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 3;
  std::string text;
  for (std::size_t i = 0; i < std::min(kShown, names.size()); ++i) {
    text += fmt::format("{}'{}'", i == 0 ? "" : ", ", names[i]);
  }
  if (names.size() > kShown) text += fmt::format(" and {} more", names.size() - kShown);
  return text;
}

}  // namespace cairn::detail
