#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cairn/config.hpp"
#include "cairn/context.hpp"
#include "cairn/export.hpp"

namespace torch::nn {
class Module;
}

namespace cairn {

/// Low-rank adapters beside linear layers (torch::nn::Linear) of a model that knows nothing of
/// them. A layer with an adapter computes with base + alpha / rank * B A. The base is its own
/// weight; A [rank, in] and B [out, rank] are new parameters of the layer, `lora_A` and `lora_B`,
/// so that they are saved, loaded and stepped by their names as any other. LinearImpl computes with
/// its public member `weight`: apply() sets that to the sum, and the parameter of that name stays
/// the base. A sum knows no samples: with dropout, apply() in training mode draws one mask of the
/// layer's inputs for the forward passes that follow, where torch::nn::Dropout would draw one for
/// each sample. In the mean both give the same; the noise is the same for all samples of a batch.
///
/// A copy refers to the same adapters. LibTorch's Module::clone refuses a model with adapters, with
/// an error of its own ("same number of parameters"): call clone() here. All members are Local. Not
/// thread-safe.
class CAIRN_EXPORT LoraAdapters {
 public:
  struct State;
  LoraAdapters();

  /// Adds adapters to the linear layers under `settings.target_modules`. B is zero, so that nothing
  /// changes at first; A is drawn from `seed` and the layer's path: give all ranks the same seed.
  /// From here on all parameters under the targets but the adapters' take no gradients. Layers that
  /// have an adapter of this rank keep it. Errors: not_found (a path without linear layers; names
  /// near ones), usage (settings that a file could not have; an adapter of another rank or shape),
  /// unsupported (a weight that is not floating-point, or is another module's, too: an adapter
  /// would change both); nothing has changed then.
  void attach(torch::nn::Module& model, const LoraModifier& settings, std::uint64_t seed);

  /// Dotted paths of the layers with adapters.
  std::vector<std::string> layers() const;
  /// A and B of each: what an optimizer is to step.
  std::vector<at::Tensor> parameters() const;
  /// Makes the layers compute with the adapters as they are now. Call it before each forward pass;
  /// without, a second backward pass is an error of LibTorch's. Does nothing while merged, or where
  /// there are no adapters.
  void apply();
  /// Adds the adapters to the layers' own weights, where other programs find them. The model
  /// computes the same, without apply(); it must not be trained or saved until unmerge(). Takes the
  /// memory of a copy of these weights. On an exception (no memory) nothing has changed.
  void merge();
  /// Gives the layers their weights back, bit for bit.
  void unmerge();
  bool merged() const;
  /// A copy of the model by its own Module::clone(), with adapters of its own, which have the same
  /// values. Errors: usage (merged), and what Module::clone() throws.
  std::pair<std::shared_ptr<torch::nn::Module>, LoraAdapters> clone(torch::nn::Module& model) const;

  /// For cairn itself.
  State& state() const { return *state_; }

 private:
  std::shared_ptr<State> state_;
};

/// A module of the program's own that `reset` can give fresh values. LibTorch's own modules need
/// nothing.
class CAIRN_EXPORT Resettable {
 public:
  virtual ~Resettable();
  /// Draws from LibTorch's default generator, whose seed is the same on all ranks meanwhile. Local.
  virtual void reset_parameters() = 0;
};

/// The second half of a modifier: changes the model and tells what it did. Should not throw: what
/// it throws on any rank, all ranks throw, and what the load has changed comes back, from a copy
/// that is made where such modifiers are configured. What it changes outside the model, nobody
/// undoes.
using ModifierWork = std::function<ModifierReport()>;
/// The first half: checks settings and model, and changes nothing. What it throws on any rank, all
/// ranks throw, and the model stays as it is. Neither half communicates. `model` outlives the work.
using ModifierFunction =
    std::function<ModifierWork(const CustomModifier& settings, torch::nn::Module& model)>;

/// Makes `type` known to configurations on this process. Call it on every rank, before the
/// configuration is read. Thread-safe. Local. Errors: usage (the type exists).
CAIRN_EXPORT void register_modifier_type(const std::string& type, ModifierFunction prepare);

}  // namespace cairn
