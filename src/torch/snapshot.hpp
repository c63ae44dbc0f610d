#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "cairn/modifiers.hpp"

namespace cairn::detail {

/// A model as it is: values, grads, what takes gradients, what is registered where, adapters; and
/// the values of other tensors, and LibTorch's CPU random state. Takes the memory of a copy. Local.
class Snapshot {
 public:
  Snapshot(torch::nn::Module& model, const std::vector<at::Tensor>& others,
           const LoraAdapters& adapters);
  ~Snapshot();
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  /// Makes everything as it was, in the same tensors.
  void restore();

 private:
  struct Kept;
  std::unique_ptr<Kept> kept_;
};

}  // namespace cairn::detail
