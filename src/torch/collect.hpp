#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "cairn/checkpoint.hpp"
#include "cairn/torch.hpp"
#include "torch/documents.hpp"

namespace cairn::detail {

/// What the user gave to a save.
struct TrainerView {
  const torch::nn::Module& model;
  const torch::optim::Optimizer* optimizer = nullptr;
  const SchedulerRef* scheduler = nullptr;
};

/// A trainer's state as the core takes it. `owners` keep the viewed bytes alive.
struct Collected {
  StateView state;
  std::vector<at::Tensor> owners;
  StateDocuments documents;  ///< to be merged over the ranks, then put into `state`
};

/// Local. Errors: usage, mismatch (a placement that does not fit its tensor), unsupported.
Collected collect(const TrainerView& trainer, const ManagerOptions& options,
                  const CheckpointInfo& info);

}  // namespace cairn::detail
