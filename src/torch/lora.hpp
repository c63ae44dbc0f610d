#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cairn/modifiers.hpp"
#include "pipeline/path_patterns.hpp"
#include "torch/documents.hpp"

namespace torch::nn {
class LinearImpl;
}

namespace cairn::detail {

/// A linear layer and its adapter, whose tensors may exist before they are the layer's parameters.
struct LoraLayer {
  std::string path;
  std::shared_ptr<torch::nn::LinearImpl> linear;
  at::Tensor base;
  at::Tensor a;
  at::Tensor b;
  std::uint64_t rank = 0;
  double alpha = 0;
  double dropout = 0;
  bool fresh = false;  ///< A and B are not the layer's yet
  at::Tensor kept;     ///< the base's values while merged

  double scale() const { return alpha / static_cast<double>(rank); }
};

/// The dotted paths of the model's linear layers, each layer once.
std::vector<std::string> linear_paths(const torch::nn::Module& model);

/// The linear layers that `patterns` take and `known` does not hold yet, with new A and B, or with
/// those that the layer has already. Changes nothing. Local. Errors: usage, unsupported.
std::vector<LoraLayer> make_adapters(const torch::nn::Module& model, const LoraModifier& settings,
                                     const PathPatterns& patterns, std::uint64_t seed,
                                     const LoraAdapters::State& known);

/// Registers the layers' A and B, and takes gradients from all other parameters under `patterns`.
void attach(LoraAdapters::State& state, const torch::nn::Module& model,
            const PathPatterns& patterns, std::vector<LoraLayer> layers);

/// base + scale * B A without gradients or dropout.
at::Tensor merged_weight(const LoraLayer& layer);

/// The names of A and B beside a layer's path, or below the name of a parameter.
std::string adapter_name(const std::string& path, char which);

/// Whether it is A or B of one of them.
bool is_adapter(const LoraAdapters::State& state, const at::Tensor& tensor);

/// By path: what a resumed run has to know of the adapters beside their values.
Json adapters_document(const LoraAdapters::State& state);

}  // namespace cairn::detail

namespace cairn {

struct LoraAdapters::State {
  std::vector<detail::LoraLayer> layers;
  bool merged = false;
};

}  // namespace cairn
