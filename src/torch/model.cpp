#include "torch/model.hpp"

#include <torch/nn/module.h>

#include "cairn/tensor_view.hpp"

namespace cairn::detail {

std::vector<ModelTensor> model_tensors(const torch::nn::Module& model) {
  std::vector<ModelTensor> tensors;
  std::unordered_map<const at::TensorImpl*, std::size_t> known;
  const auto add = [&](const auto& named) {
    for (const auto& item : named) {
      if (!item.value().defined()) continue;
      const auto [it, is_new] =
          known.try_emplace(item.value().unsafeGetTensorImpl(), tensors.size());
      if (is_new) tensors.push_back({{}, item.value()});
      tensors[it->second].names.push_back(item.key());
    }
  };
  add(model.named_parameters());
  add(model.named_buffers());
  return tensors;
}

std::string model_tensor_name(const std::string& fqn) { return "model/" + escape_component(fqn); }

ParameterNames parameter_names(const std::vector<ModelTensor>& model,
                               const std::vector<NamedTensor>& given) {
  ParameterNames names;
  for (const NamedTensor& item : given) names.emplace(item.tensor.unsafeGetTensorImpl(), item.name);
  if (!given.empty()) return names;
  for (const ModelTensor& item : model) {
    names.emplace(item.tensor.unsafeGetTensorImpl(), item.names.front());
  }
  return names;
}

}  // namespace cairn::detail
