#pragma once

#include "cairn/checkpoint.hpp"
#include "cairn/torch.hpp"

namespace cairn::detail {

/// What the user gave to a load.
struct TrainerState {
  torch::nn::Module& model;
  torch::optim::Optimizer* optimizer = nullptr;
  const SchedulerRef* scheduler = nullptr;
};

/// How it is to be loaded; the same on all ranks.
struct RestoreSettings {
  const ManagerOptions& options;
  LoadingConfig loading;
  LoadOptions load;
};

/// Fills what the strategy restores of what is given, or, on Error, nothing; only an io Error while
/// the bytes move, after all checks, leaves tensors partly filled. Collective.
/// Errors: mismatch, not_found (reset_layers that the model does not have), corrupt, unsupported,
/// usage, io, timeout.
CheckpointContext restore(const Comm& comm, const Manifest& manifest, const TrainerState& trainer,
                          const RestoreSettings& settings);

}  // namespace cairn::detail
