#include "torch/collect.hpp"

#include <vector>

#include "cairn/average.hpp"
#include "torch/lora.hpp"
#include "torch/model.hpp"
#include "torch/optimizer.hpp"
#include "torch/quantized.hpp"
#include "torch/random.hpp"
#include "torch/scheduler.hpp"
#include "torch/tensor_memory.hpp"
#include "torch/text.hpp"

namespace cairn::detail {
namespace {

void add(Collected& to, const std::string& name, const TensorMemory& memory, Placement placement) {
  to.owners.push_back(memory.dense);
  to.state.tensors.push_back({name, memory.dtype, std::move(placement), memory.data()});
}

void add_model(Collected& to, const std::vector<ModelTensor>& tensors,
               const PlacementPolicy& policy) {
  Json aliases = Json::object();
  Json quantized = Json::object();
  for (const ModelTensor& item : tensors) {
    const std::string& first = item.names.front();
    const std::string name = model_tensor_name(first);
    const TensorMemory memory = memory_for_save(name, item.tensor);
    for (std::size_t i = 1; i < item.names.size(); ++i) aliases[item.names[i]] = first;
    if (item.tensor.is_quantized()) quantized[first] = quantizer_record(name, item.tensor);
    add(to, name, memory, place(policy, name, memory));
  }
  to.documents.model["aliases"] = std::move(aliases);
  to.documents.model["quantized"] = std::move(quantized);
}

void add_optimizer(Collected& to, const torch::optim::Optimizer& optimizer,
                   const ParameterNames& names, const PlacementPolicy& policy) {
  to.documents.optimizer = optimizer_document(optimizer, names);
  for (const OptimizerSlot& slot : optimizer_slots(optimizer, names)) {
    const TensorMemory memory = memory_for_save(slot.name, slot.tensor);
    add(to, slot.name, memory, place(slot.counter ? PlacementPolicy() : policy, slot.name, memory));
  }
}

void add_adapters_document(Collected& to, const LoraAdapters& adapters) {
  if (adapters.state().layers.empty()) return;
  to.documents.model["adapters"] = adapters_document(adapters.state());
}

void require_unmerged(const LoraAdapters& adapters) {
  if (!adapters.merged()) return;
  fail(Errc::usage,
       "the model's adapters are merged into its weights, and would be added again when the "
       "checkpoint is loaded; call unmerge() first");
}

/// The adapters alone, or the model without them.
void take_adapters(const LoraAdapters::State& state, ModelExport what,
                   std::vector<ModelTensor>& tensors) {
  if (state.layers.empty()) {
    fail(Errc::usage, "the model has no adapters to export; save it as it is");
  }
  std::erase_if(tensors, [&](const ModelTensor& item) {
    return is_adapter(state, item.tensor) != (what == ModelExport::adapters);
  });
  for (ModelTensor& item : tensors) {
    for (const LoraLayer& layer : state.layers) {
      if (layer.base.is_same(item.tensor)) item.tensor = merged_weight(layer);
    }
  }
}

void take_averages(const States& states, std::vector<ModelTensor>& tensors) {
  const WeightAverage* average = nullptr;
  for (const auto& [name, object] : states) {
    if (average == nullptr) average = dynamic_cast<const WeightAverage*>(object);
  }
  if (average == nullptr) {
    fail(Errc::usage, "there are no averages to export; add a WeightAverage to the manager");
  }
  for (ModelTensor& item : tensors) {
    if (at::Tensor averaged = average->average_of(item.tensor); averaged.defined()) {
      item.tensor = averaged;
    }
  }
}

}  // namespace

Collected collect(const TrainerView& trainer, const ManagerOptions& options,
                  const CheckpointInfo& info, const LoraAdapters& adapters, const States& states) {
  require_unmerged(adapters);
  Collected collected;
  collected.state.step = info.global_step;
  const auto tensors = model_tensors(trainer.model);
  add_model(collected, tensors, options.placement);
  add_adapters_document(collected, adapters);
  if (trainer.optimizer != nullptr) {
    add_optimizer(collected, *trainer.optimizer,
                  parameter_names(tensors, options.optimizer_parameters), options.placement);
  }
  auto& documents = collected.state.documents;
  documents["context"] = context_document(info);
  if (trainer.scheduler != nullptr) {
    documents["scheduler"] = to_text(scheduler_document(*trainer.scheduler));
  }
  collected.state.rank_blobs["rng"] = random_state();
  if (!info.metadata.empty()) documents["user"] = user_document(info);
  collect_states(states, collected.state);
  return collected;
}

Collected collect_export(const torch::nn::Module& model, ModelExport what,
                         const ManagerOptions& options, const CheckpointInfo& info,
                         const LoraAdapters& adapters, const States& states) {
  require_unmerged(adapters);
  auto tensors = model_tensors(model);
  if (what == ModelExport::averaged) {
    take_averages(states, tensors);
  } else if (what != ModelExport::weights) {
    take_adapters(adapters.state(), what, tensors);
  }
  Collected collected;
  collected.state.step = info.global_step;
  add_model(collected, tensors, options.placement);
  if (what != ModelExport::merged) add_adapters_document(collected, adapters);
  collected.state.documents["context"] = context_document(info);
  return collected;
}

}  // namespace cairn::detail
