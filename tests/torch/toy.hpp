#pragma once

#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>

#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "cairn/error.hpp"
#include "cairn/torch.hpp"
#include "support/mpi_test.hpp"

namespace cairn::test {

/// A module that holds whatever it is given.
struct Bag : torch::nn::Module {
  using torch::nn::Module::register_buffer;
  using torch::nn::Module::register_module;
  using torch::nn::Module::register_parameter;
};

/// What saves to `dir`.
inline Config config_for(const std::filesystem::path& dir) {
  Config config;
  config.save.dir = dir;
  return config;
}

/// A manager that saves to `dir` and loads its newest checkpoint.
inline CheckpointManager manager_in(const std::filesystem::path& dir, ManagerOptions options = {},
                                    EngineKind engine = EngineKind::direct) {
  Config config = config_for(dir);
  config.source = LocalSource{dir};
  config.save.engine = engine;
  return CheckpointManager(world().raw(), config, std::move(options));
}

/// The bytes of the tensor's elements in row-major order.
inline std::string bytes_of(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.detach().resolve_conj().contiguous();
  return {static_cast<const char*>(dense.data_ptr()), dense.nbytes()};
}

inline std::vector<std::string> bytes_of(const torch::nn::Module& model) {
  std::vector<std::string> all;
  for (const auto& item : model.named_parameters()) all.push_back(bytes_of(item.value()));
  for (const auto& item : model.named_buffers()) all.push_back(bytes_of(item.value()));
  return all;
}

/// A float tensor with the values first, first + 1, ...
inline at::Tensor counting(at::IntArrayRef sizes, double first = 0) {
  return (at::arange(c10::multiply_integers(sizes), at::kFloat) + first).view(sizes);
}

/// A module whose only parameter is `weight`.
inline Bag bag_with(const at::Tensor& weight) {
  Bag bag;
  bag.register_parameter("weight", weight, weight.is_floating_point());
  return bag;
}

/// A model of two layers and an unused parameter, which an optimizer has no state for.
struct Model : Bag {
  explicit Model(double first) {
    weight = register_parameter("layer/weight", counting({4, 3}, first) * 0.01);
    bias = register_parameter("bias", counting({3}, first + 3) * 0.1);
    unused = register_parameter("unused", counting({2}, first));
  }
  at::Tensor weight, bias, unused;
};

inline void train(Model& model, torch::optim::Optimizer& optimizer, int steps) {
  for (int i = 0; i < steps; ++i) {
    optimizer.zero_grad();
    const at::Tensor input = counting({5, 4}, i) * 0.05;
    (at::addmm(model.bias, input, model.weight) - 1).pow(2).sum().backward();
    optimizer.step();
  }
}

inline std::vector<torch::optim::OptimizerParamGroup> one_group(const Model& model) {
  return {torch::optim::OptimizerParamGroup(model.parameters())};
}

}  // namespace cairn::test
