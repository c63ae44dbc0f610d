#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "cairn/torch.hpp"

namespace torch::nn {
class LinearImpl;
}

namespace cairn::detail {

/// The weight that `linear` has registered, which is what checkpoints hold. Undefined where it has
/// none. Local.
at::Tensor own_weight(const torch::nn::LinearImpl& linear);

/// Why the weight of `linear`, a layer of `model` at `path`, can't be changed for that layer alone:
/// because it computes with another module's parameter, or another module with its. Names both;
/// empty where nothing speaks against it. LibTorch ties weights by sharing a parameter, its memory,
/// or just by setting a module's public member `weight`. `has_adapter`: the layer's member is a
/// sum. Local.
std::string tie_of(const torch::nn::Module& model, const std::string& path,
                   const torch::nn::LinearImpl& linear, bool has_adapter);

}  // namespace cairn::detail
