#pragma once

#include <torch/nn/module.h>

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

/// A manager that saves to `dir` and loads its newest checkpoint.
inline CheckpointManager manager_in(const std::filesystem::path& dir, ManagerOptions options = {},
                                    EngineKind engine = EngineKind::direct) {
  Config config;
  config.source = LocalSource{dir};
  config.save.dir = dir;
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

}  // namespace cairn::test
