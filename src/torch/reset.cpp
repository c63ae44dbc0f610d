#include "torch/reset.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/nn.h>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "torch/owners.hpp"
#include "torch/random.hpp"

namespace cairn::detail {
namespace {

using torch::nn::Module;

template <class T>
bool reset_as(Module& module, bool for_real) {
  auto* typed = dynamic_cast<T*>(&module);
  if (typed != nullptr && for_real) typed->reset_parameters();
  return typed != nullptr;
}

template <class... T>
bool reset_as_any(Module& module, bool for_real) {
  return (reset_as<T>(module, for_real) || ...);
}

/// Whether the module can reset itself; does it where `for_real`.
bool reset_module(Module& module, bool for_real) {
  using namespace torch::nn;
  if (auto* linear = dynamic_cast<LinearImpl*>(&module); linear != nullptr && for_real) {
    // With an adapter the member is the sum; what is reset is the parameter.
    linear->weight = own_weight(*linear);
  }
  if (auto* attention = dynamic_cast<MultiheadAttentionImpl*>(&module)) {
    if (for_real) attention->_reset_parameters();
    return true;
  }
  return reset_as<Resettable>(module, for_real) ||
         reset_as_any<LinearImpl, BilinearImpl, EmbeddingImpl, EmbeddingBagImpl, LayerNormImpl,
                      GroupNormImpl, BatchNorm1dImpl, BatchNorm2dImpl, BatchNorm3dImpl,
                      InstanceNorm1dImpl, InstanceNorm2dImpl, InstanceNorm3dImpl>(module,
                                                                                  for_real) ||
         reset_as_any<Conv1dImpl, Conv2dImpl, Conv3dImpl, ConvTranspose1dImpl, ConvTranspose2dImpl,
                      ConvTranspose3dImpl, RNNImpl, LSTMImpl, GRUImpl, RNNCellImpl, LSTMCellImpl,
                      GRUCellImpl>(module, for_real);
}

/// A layer that computes with another's weight would lose it, or give the other fresh values.
void refuse_tie(const Module& model, const std::string& path, const Module& module) {
  const auto* linear = dynamic_cast<const torch::nn::LinearImpl*>(&module);
  if (linear == nullptr) return;
  const bool has_adapter = linear->named_parameters(/*recurse=*/false).contains("lora_A");
  const std::string tie = tie_of(model, path, *linear, has_adapter);
  if (tie.empty()) return;
  fail(Errc::unsupported, "reset: {}: both would change; leave it out of the layers", tie);
}

/// Calls `visit(path, module)` for the model, with an empty path, and for all its modules.
template <class F>
void for_each_module(Module& model, F&& visit) {
  visit(std::string(), model);
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    visit(item.key(), *item.value());
  }
}

}  // namespace

void check_reset(Module& model, const PathPatterns& patterns) {
  for_each_module(model, [&](const std::string& path, Module& module) {
    const bool named = !path.empty() && patterns.matches(path);
    if (named) refuse_tie(model, path, module);
    if (named && reset_module(module, false)) return;
    for (const auto& item : module.named_parameters(/*recurse=*/false)) {
      const std::string name = path.empty() ? item.key() : path + "." + item.key();
      if (!item.value().defined() || !patterns.matches(name)) continue;
      if (!named) {
        fail(Errc::usage, "reset: '{}' is a parameter; only whole modules can be reset", name);
      }
      fail(Errc::unsupported,
           "reset: '{}' is a {}, which has no reset_parameters() that cairn knows; derive it from "
           "cairn::Resettable",
           path, module.name());
    }
  });
}

ModifierReport reset(Module& model, const PathPatterns& patterns, std::uint64_t seed) {
  ModifierReport report{"reset", {}, {}};
  const auto before = random_state();
  for_each_module(model, [&](const std::string& path, Module& module) {
    if (path.empty() || !patterns.matches(path)) return;
    Digester digester;
    digester.update(seed);
    digester.update(std::string_view(path));
    set_seed(digester.value());
    if (reset_module(module, true)) report.names.push_back(path);
  });
  set_random_state(before);
  report.text = fmt::format("{} modules have fresh values", report.names.size());
  return report;
}

}  // namespace cairn::detail
