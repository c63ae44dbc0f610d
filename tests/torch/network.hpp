#pragma once

#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include <string>
#include <utility>
#include <vector>

#include "torch/toy.hpp"

// A small model that knows nothing of checkpoints, and what tests of modifiers ask of it.
namespace cairn::test {

struct Decoder : torch::nn::Module {
  explicit Decoder(std::int64_t classes) {
    inner = register_module("inner", torch::nn::Linear(6, 5));
    norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({5})));
    out =
        register_module("out", torch::nn::Linear(torch::nn::LinearOptions(5, classes).bias(false)));
  }
  at::Tensor forward(const at::Tensor& x) { return out(norm(inner(x)).tanh()); }
  torch::nn::Linear inner{nullptr}, out{nullptr};
  torch::nn::LayerNorm norm{nullptr};
};

struct Network : torch::nn::Module {
  explicit Network(double first) {
    encoder = register_module("encoder", torch::nn::Linear(4, 6));
    decoder = register_module("decoder", std::make_shared<Decoder>(3));
    const at::NoGradGuard no_grad;
    for (const at::Tensor& tensor : parameters()) {
      tensor.copy_((counting(tensor.sizes(), first) * 0.7).sin() * 0.5);
      first += 11;
    }
  }
  at::Tensor forward(const at::Tensor& x) { return decoder->forward(encoder(x).tanh()); }
  torch::nn::Linear encoder{nullptr};
  std::shared_ptr<Decoder> decoder;
};

inline at::Tensor input() { return (counting({7, 4}) * 0.3).cos(); }

inline at::Tensor parameter(const torch::nn::Module& model, const std::string& name) {
  return model.named_parameters()[name];
}

/// Names, values and whether they are trained: all that a failed load must not change.
inline std::vector<std::string> everything(const torch::nn::Module& model) {
  std::vector<std::string> all;
  for (const auto& item : model.named_parameters()) {
    all.push_back(item.key() + (item.value().requires_grad() ? " trained " : " frozen ") +
                  bytes_of(item.value()));
  }
  return all;
}

inline std::vector<std::string> frozen(const torch::nn::Module& model) {
  std::vector<std::string> names;
  for (const auto& item : model.named_parameters()) {
    if (!item.value().requires_grad()) names.push_back(item.key());
  }
  return names;
}

inline Config config_of(const std::filesystem::path& dir, std::vector<Modifier> modifiers,
                        LoadingType type = LoadingType::transfer_learning) {
  Config config;
  config.source = LocalSource{dir};
  config.save.dir = dir;
  config.loading = LoadingConfig{};
  config.loading->type = type;
  config.loading->strict = type != LoadingType::transfer_learning;
  config.modifiers = std::move(modifiers);
  return config;
}

/// A run directory with a checkpoint of Network(1).
inline std::filesystem::path pretrained() {
  const auto dir = scratch();
  auto manager = manager_in(dir);
  manager.save_checkpoint(Network(1), {.epoch = 3, .global_step = 30});
  manager.close();
  return dir;
}

/// Equal on all ranks, element by element.
inline void expect_same_on_ranks(const torch::nn::Module& model) {
  std::string mine;
  for (const std::string& text : everything(model)) mine += text;
  std::string of_root = mine;
  world().broadcast(of_root);
  EXPECT_EQ(mine, of_root);
}

inline LoraModifier lora(std::uint64_t rank, std::vector<std::string> targets) {
  LoraModifier modifier;
  modifier.rank = rank;
  modifier.target_modules = std::move(targets);
  return modifier;
}

}  // namespace cairn::test
