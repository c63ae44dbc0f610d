#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "cairn/export.hpp"
#include "cairn/state.hpp"
#include "cairn/torch.hpp"

namespace cairn {

/// Exponential moving averages of a model's floating-point parameters, beside the parameters
/// themselves: a warm start goes on with these, and export_model writes the averages
/// (ModelExport::averaged). Add it to the manager (`manager.add_state("ema", average)`) before
/// anything is loaded. Lifetime: the model must outlive it, with its parameters where they are.
class CAIRN_EXPORT WeightAverage : public Stateful {
 public:
  /// Begins with the parameters as they are. `placement`: that of the manager. Local. Errors: usage
  /// (a decay outside 0 to 1).
  WeightAverage(const torch::nn::Module& model, double decay, PlacementPolicy placement = {});

  /// average = decay * average + (1 - decay) * parameter. After each step of the optimizer. Local.
  void update();
  /// By the parameters' dotted names. Local.
  const std::vector<NamedTensor>& averages() const { return averages_; }
  /// That of a parameter of the model; undefined where it has none. Local.
  at::Tensor average_of(const at::Tensor& parameter) const;

  // As Stateful says. All Local.
  std::string state() const override;
  void load(const std::string& state) override;
  std::vector<MutableTensorView> tensors() override;

 private:
  double decay_;
  PlacementPolicy placement_;
  std::uint64_t updates_ = 0;
  std::vector<at::Tensor> parameters_;
  std::vector<NamedTensor> averages_;  ///< in the order of the parameters
};

}  // namespace cairn
