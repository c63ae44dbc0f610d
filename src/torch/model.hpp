#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <unordered_map>
#include <vector>

#include "cairn/torch.hpp"

namespace cairn::detail {

/// A parameter or buffer with all its names in the module; the first is the one it is saved under.
struct ModelTensor {
  std::vector<std::string> names;
  at::Tensor tensor;
  bool optional = false;  ///< no checkpoint needs to have it (an adapter's)
};

/// All defined parameters, then all buffers, each once however many names it has. Local.
std::vector<ModelTensor> model_tensors(const torch::nn::Module& model);

/// "model/<fqn>"
std::string model_tensor_name(const std::string& fqn);

/// Parameters by identity.
using ParameterNames = std::unordered_map<const at::TensorImpl*, std::string>;
/// `given` where there are any, else the model's.
ParameterNames parameter_names(const std::vector<ModelTensor>& model,
                               const std::vector<NamedTensor>& given);

}  // namespace cairn::detail
