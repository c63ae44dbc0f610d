#include "torch/snapshot.hpp"

#include <ATen/core/grad_mode.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>

#include <string>
#include <unordered_set>
#include <utility>

#include "torch/lora.hpp"
#include "torch/parameters.hpp"
#include "torch/random.hpp"

namespace cairn::detail {
namespace {

using torch::nn::LinearImpl;
using torch::nn::Module;
using Tensors = torch::OrderedDict<std::string, at::Tensor>;
using Children = torch::OrderedDict<std::string, std::shared_ptr<Module>>;

// LibTorch has no way to take back the registration of a buffer, either. An explicit instantiation
// may name private members.
template <class Tag, typename Tag::Member member>
struct Grant {
  friend typename Tag::Member granted(Tag) { return member; }
};
struct Buffers {
  using Member = Tensors Module::*;
  friend Member granted(Buffers);
};
struct Submodules {
  using Member = Children Module::*;
  friend Member granted(Submodules);
};
template struct Grant<Buffers, &Module::buffers_>;
template struct Grant<Submodules, &Module::children_>;

struct KeptModule {
  std::shared_ptr<Module> owner;  ///< none for the model itself
  Module* module;
  Tensors parameters, buffers;
  Children children;
  bool training;
  at::Tensor weight;  ///< the member of a linear layer, which an adapter changes
};

struct KeptTensor {
  at::Tensor tensor;
  at::Tensor memory;  ///< the same memory, should the tensor get another
  at::Tensor values;
  at::Tensor grad;
  bool takes_gradients;
};

KeptModule keep(Module& module, std::shared_ptr<Module> owner) {
  KeptModule kept{std::move(owner),
                  &module,
                  module.*ParametersOf::kMember,
                  module.*granted(Buffers()),
                  module.*granted(Submodules()),
                  module.is_training(),
                  {}};
  if (auto* linear = dynamic_cast<LinearImpl*>(&module)) kept.weight = linear->weight;
  return kept;
}

void put_back(const KeptModule& kept) {
  Module& module = *kept.module;
  module.*ParametersOf::kMember = kept.parameters;
  module.*granted(Buffers()) = kept.buffers;
  module.*granted(Submodules()) = kept.children;
  if (auto* linear = dynamic_cast<LinearImpl*>(&module)) linear->weight = kept.weight;
}

void put_back(const KeptTensor& kept) {
  at::Tensor tensor = kept.tensor;
  tensor.set_data(kept.memory);
  tensor.detach().copy_(kept.values);
  tensor.requires_grad_(kept.takes_gradients);
  tensor.mutable_grad() = kept.grad;
}

}  // namespace

struct Snapshot::Kept {
  std::vector<KeptModule> modules;
  std::vector<KeptTensor> tensors;
  LoraAdapters adapters;
  LoraAdapters::State state;
  std::vector<std::byte> random = random_state();
};

Snapshot::Snapshot(Module& model, const std::vector<at::Tensor>& others,
                   const LoraAdapters& adapters)
    : kept_(new Kept{{}, {}, adapters, adapters.state()}) {
  const at::NoGradGuard no_grad;
  kept_->modules.push_back(keep(model, nullptr));
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    kept_->modules.push_back(keep(*item.value(), item.value()));
  }
  std::unordered_set<const at::TensorImpl*> known;
  const auto add = [&](const at::Tensor& tensor) {
    if (!tensor.defined() || !known.insert(tensor.unsafeGetTensorImpl()).second) return;
    kept_->tensors.push_back(
        {tensor, tensor.detach(), tensor.detach().clone(), tensor.grad(), tensor.requires_grad()});
  };
  for (const at::Tensor& tensor : model.parameters()) add(tensor);
  for (const at::Tensor& tensor : model.buffers()) add(tensor);
  for (const at::Tensor& tensor : others) add(tensor);
}

Snapshot::~Snapshot() = default;

void Snapshot::restore() {
  const at::NoGradGuard no_grad;
  for (const KeptModule& kept : kept_->modules) put_back(kept);
  // From the outside in, because train() tells all below.
  for (const KeptModule& kept : kept_->modules) kept.module->train(kept.training);
  for (const KeptTensor& kept : kept_->tensors) put_back(kept);
  kept_->adapters.state() = kept_->state;
  set_random_state(kept_->random);
}

}  // namespace cairn::detail
