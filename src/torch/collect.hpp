#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "cairn/checkpoint.hpp"
#include "cairn/torch.hpp"
#include "torch/documents.hpp"
#include "trainer/states.hpp"

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

/// Local. Errors: usage (merged adapters), mismatch (a placement that does not fit its tensor),
/// unsupported.
Collected collect(const TrainerView& trainer, const ManagerOptions& options,
                  const CheckpointInfo& info, const LoraAdapters& adapters, const States& states);

/// A part or a form of the model, without what belongs to a trainer. Local. Errors: as above; usage
/// (no adapters, no averages among `states`).
Collected collect_export(const torch::nn::Module& model, ModelExport what,
                         const ManagerOptions& options, const CheckpointInfo& info,
                         const LoraAdapters& adapters, const States& states);

}  // namespace cairn::detail
