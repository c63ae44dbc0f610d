#pragma once

#include <torch/nn/module.h>

#include <string>

namespace cairn::detail {

/// LibTorch has no way to take back the registration of a parameter; a derived class may name the
/// protected member: `module.*ParametersOf::kMember`.
struct ParametersOf : torch::nn::Module {
  static constexpr torch::OrderedDict<std::string, at::Tensor> Module::*kMember =
      &ParametersOf::parameters_;
};

}  // namespace cairn::detail
